"""Experiment report: Table 1, its gains, the effect of alpha and training curves as one HTML page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mtl_core.evaluation.html_page import page
from mtl_core.experiments import alpha_sweep, plots, table1_text
from mtl_core.experiments.pooling import MULTI
from mtl_core.experiments.run_store import BOTH, VARIANTS, RunResult
from mtl_core.experiments.scoring import LEVELS

_MODEL_NAMES = {BOTH: MULTI} | {task: f"{task}-only" for task in VARIANTS if task != BOTH}


def render_experiment(table: Mapping[str, Any], results: Sequence[RunResult]) -> str:
    """The page.

    Args:
        table: of `comparison.table`, and in its `alphas` what `alphas.effects` gives.
        results: the runs it was made of.
    """
    by = f" by {table['group_column']}" if table["group_column"] else ""
    facts = {
        "split": table["split"] + by,
        "runs": f"{len(results):,}",
        "resamples": f"{table['resamples']:,}",
        "mels": table["fingerprint"][:16],
    }
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    parts = [f"<header><h1>Table 1</h1><dl>{listed}</dl></header>", _gains(table)]
    parts += [_level(table, level) for level in LEVELS]
    parts += [_reported(table), _alphas(table["alphas"]), _histories(results)]
    return page(f"Table 1, split {table['split']}{by}", "\n".join(parts))


def _gains(table: Mapping[str, Any]) -> str:
    several = len(table["groups"]) > 1
    rows = [
        (f"{group['name']}: " if several else "", row) for group in table["groups"] for row in group["differences"]
    ] + [("", row) for row in table["against_paper"]]
    shown = []
    for prefix, row in rows:
        gain = row["tracks"]["auc_pr_macro"]
        if gain["difference"] is not None:
            name = f"{prefix}{row['task']}: {row['of']} \N{MINUS SIGN} {row['minus']}"
            shown.append((name, row["task"], gain["difference"], gain["ci"]))
    if not shown:
        return ""
    return f"""<section><h2>Gains</h2><figure>{plots.gains(shown)}<figcaption>Paired differences with their
95% bootstrap intervals over songs; one that holds 0 is no evidence of a gain.</figcaption></figure></section>"""


def _level(table: Mapping[str, Any], level: str) -> str:
    blocks = []
    for title, lines in table1_text.rows(table, level):
        blocks.append(f"<h3>{escape(title)}</h3>{_scores([table1_text.head(level), *lines])}")
    return (
        f'<section><h2>On {level}</h2>{"".join(blocks)}<p class="note">{escape(table1_text.TABLE1_NOTE)}</p></section>'
    )


def _scores(lines: Sequence[Sequence[str]]) -> str:
    """A table of scores; its first line names the columns, the first cell of the others the line."""
    head = "".join(f"<th>{escape(name)}</th>" for name in lines[0])
    body = "".join(
        f"<tr><th>{escape(line[0])}</th>{''.join(f'<td>{_cell(cell)}</td>' for cell in line[1:])}</tr>"
        for line in lines[1:]
    )
    return (
        f'<div class="scroll"><table class="scores"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(text: str) -> str:
    value, bracket, ends = escape(text).partition(" [")
    return f"<b>{value}</b> <span>[{ends}</span>" if bracket else value


def _reported(table: Mapping[str, Any]) -> str:
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{pr}</td><td>{roc}</td></tr>" for name, pr, roc in table1_text.reported(table)
    )
    return f"""<section><h2>Reported by the source</h2><p class="note">{escape(table1_text.REPORTED_NOTE)}</p>
<div class="scroll"><table class="scores"><thead><tr><th></th><th>AUC-PR</th><th>AUC-ROC</th></tr></thead>
<tbody>{body}</tbody></table></div></section>"""


def _alphas(effects: Sequence[Mapping[str, Any]]) -> str:
    shown = []
    for effect in effects:
        points: dict[str, list[Any]] = defaultdict(list)
        alone = {}
        for model in effect["models"]:
            for task, found in model["tasks"].items():
                point = (model["alpha"], found["auc_pr_macro"], found["ci"].get("auc_pr_macro"))
                if model["alpha"] is None:
                    alone[task] = found["auc_pr_macro"]
                elif found["auc_pr_macro"] is not None:
                    points[task].append(point)
        if points:
            shown.append(
                f"<h3>{escape(table1_text.title(effect))}</h3><figure>{plots.alphas(points, alone)}</figure>"
                + _scores([alpha_sweep.HEAD, *alpha_sweep.table_rows(effect)])
            )
    if not shown:
        return ""
    return f"""<section><h2>The effect of alpha</h2><p class="note">{escape(alpha_sweep.ALPHA_NOTE)} Dashed: the model of that task
alone.</p>{"".join(shown)}</section>"""


def _histories(results: Sequence[RunResult]) -> str:
    of_recipe: dict[tuple[str, int], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        run = result.run
        if run.alpha is not None:  # losses of another alpha are on another scale
            continue
        of_recipe[run.recipe, run.epochs][_MODEL_NAMES[run.tasks]].append(result.metrics.get("history", []))
    figures = "".join(
        f"<h3>{escape(recipe)}, {epochs} epochs</h3><figure>{plots.histories(of_model)}</figure>"
        for (recipe, epochs), of_model in sorted(of_recipe.items())
        if any(history for of in of_model.values() for history in of)
    )
    if not figures:
        return ""
    return f"""<section><h2>Training</h2><p class="note">A line a run. Above the loss, training dashed; below the share
of validation segments that are right, artist in blue and language in orange.</p>{figures}</section>"""
