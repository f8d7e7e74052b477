"""Experiment report: Table 1, its differences, the effect of alpha and the training curves as one HTML page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mtl_core.evaluation.pages.html_page import header, page
from mtl_core.experiments import plots
from mtl_core.experiments.alpha_sweep import ALPHA_TITLE, HEADLINE, alpha_section
from mtl_core.experiments.pooling import MULTI
from mtl_core.experiments.run_store import BOTH, VARIANTS, RunResult
from mtl_core.experiments.table1_text import difference_name, table1_sections, table1_title
from mtl_core.experiments.text_tables import Rows, Section

_MODEL_NAMES = {BOTH: MULTI} | {task: f"{task}-only" for task in VARIANTS if task != BOTH}


def render_experiment(table: Mapping[str, Any], results: Sequence[RunResult]) -> str:
    """The report as one HTML file; `table` is the content of table1.json, `results` are its runs."""
    title = table1_title(table)
    facts = {"runs": f"{len(results):,}", "resamples": f"{table['resamples']:,}", "mels": table["fingerprint"][:16]}
    parts = [header(title, facts), _difference_plot(table), *(_section(section) for section in table1_sections(table))]
    parts += [_alpha_part(table["alphas"]), _histories(results)]
    return page(title, "\n".join(parts))


def _difference_plot(table: Mapping[str, Any]) -> str:
    rows = []
    against = [{"name": "", "differences": rows} for rows in table["against"].values()]
    for group in [*table["groups"], *against]:
        prefix = f"{group['name']}: " if group["name"] and len(table["groups"]) > 1 else ""
        for row in group["differences"]:
            headline = row["tracks"][HEADLINE]
            if headline["difference"] is not None:
                rows.append((prefix + difference_name(row), row["task"], headline["difference"], headline["ci"]))
    if not rows:
        return ""
    return f"""<section><h2>Differences</h2><figure>{plots.plot_differences(rows)}<figcaption>Paired differences with
their 95% bootstrap intervals over songs. An interval that contains 0 is not evidence of a difference.</figcaption>
</figure></section>"""


def _section(section: Section, figures: Sequence[str] = ()) -> str:
    """A section with its notes and tables, and a figure above each table if there are figures."""
    parts = [f"<h2>{escape(section.heading)}</h2>"] if section.heading else []
    parts += [f'<p class="note">{escape(note)}</p>' for note in section.notes]
    for i, (title, rows) in enumerate(section.tables):
        parts += [f"<h3>{escape(title)}</h3>"] if title else []
        parts += [f"<figure>{figures[i]}</figure>"] if figures else []
        parts.append(_html_table(rows))
    return f"<section>{''.join(parts)}</section>"


def _html_table(rows: Rows) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{_html_cell(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows[1:]
    )
    return (
        f'<div class="scroll"><table class="scores"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _html_cell(text: str) -> str:
    value, bracket, ends = escape(text).partition(" [")
    return f"<b>{value}</b> <span>[{ends}</span>" if bracket else value


def _alpha_part(effects: Sequence[Mapping[str, Any]]) -> str:
    if not effects:
        return ""
    figures = []
    for effect in effects:
        points: dict[str, list[Any]] = defaultdict(list)
        single_task = {}
        for model in effect["models"]:
            for task, scores in model["tasks"].items():
                if model["alpha"] is None:
                    single_task[task] = scores[HEADLINE]
                elif scores[HEADLINE] is not None:
                    points[task].append((model["alpha"], scores[HEADLINE], scores["ci"].get(HEADLINE)))
        figures.append(plots.plot_alphas(points, single_task))
    section = alpha_section(effects)
    notes = [*section.notes, "Dashed lines are the models of one task."]
    return _section(Section(heading=ALPHA_TITLE, notes=notes, tables=section.tables), figures)


def _histories(results: Sequence[RunResult]) -> str:
    groups: dict[tuple[str, int], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        run, history = result.run, result.metrics.get("history", [])
        if run.alpha is None and history:  # with another alpha the losses are on another scale
            groups[run.recipe, run.epochs][_MODEL_NAMES[run.tasks]].append(history)
    if not groups:
        return ""
    figures = "".join(
        f"<h3>{escape(recipe)}, {epochs} epochs</h3><figure>{plots.plot_histories(models)}</figure>"
        for (recipe, epochs), models in sorted(groups.items())
    )
    return f"""<section><h2>Training</h2><p class="note">A line for each run. Above: the loss, training dashed and
validation solid. Below: the share of validation segments that are right, artist in blue and language in orange.</p>
{figures}</section>"""
