"""Experiment report: Table 1, its gains and its training curves as one HTML page, for people who look."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mtl_core import experiment_plots, table1
from mtl_core.comparison import LEVELS
from mtl_core.experiment import BOTH, VARIANTS, Result
from mtl_core.page import page
from mtl_core.pooling import MULTI

_MODEL_NAMES = {BOTH: MULTI} | {task: f"{task}-only" for task in VARIANTS if task != BOTH}


def html(table: Mapping[str, Any], results: Sequence[Result]) -> str:
    """The page.

    Args:
        table: of `comparison.table`.
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
    parts += [_reported(table), _alphas(table), _histories(results)]
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
    return f"""<section><h2>Gains</h2><figure>{experiment_plots.gains(shown)}<figcaption>Paired differences with their
95% bootstrap intervals over songs; one that holds 0 is no evidence of a gain.</figcaption></figure></section>"""


def _level(table: Mapping[str, Any], level: str) -> str:
    blocks = []
    for title, lines in table1.rows(table, level):
        head = "".join(f"<th>{escape(name)}</th>" for name in table1.head(level))
        body = "".join(
            f"<tr><th>{escape(line[0])}</th>{''.join(f'<td>{_cell(cell)}</td>' for cell in line[1:])}</tr>"
            for line in lines
        )
        blocks.append(
            f'<h3>{escape(title)}</h3><div class="scroll"><table class="scores"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    return f'<section><h2>On {level}</h2>{"".join(blocks)}<p class="note">{escape(table1.NOTE)}</p></section>'


def _cell(text: str) -> str:
    value, bracket, ends = escape(text).partition(" [")
    return f"<b>{value}</b> <span>[{ends}</span>" if bracket else value


def _reported(table: Mapping[str, Any]) -> str:
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{pr}</td><td>{roc}</td></tr>" for name, pr, roc in table1.reported(table)
    )
    return f"""<section><h2>Reported by the source</h2><p class="note">{escape(table1.REPORTED_NOTE)}</p>
<div class="scroll"><table class="scores"><thead><tr><th></th><th>AUC-PR</th><th>AUC-ROC</th></tr></thead>
<tbody>{body}</tbody></table></div></section>"""


def _alphas(table: Mapping[str, Any]) -> str:
    """Groups of the `paper` recipe's numbers but for alpha, and its artist-only model, whose alpha is 0."""
    points: dict[str, list[tuple[float, float, Any]]] = defaultdict(list)
    for group in table["groups"]:
        if not group["only_alpha_differs"]:
            continue
        for row in group["systems"]:
            found = row["tracks"]
            alpha = group["alpha"] if row["system"] == MULTI else 0.0 if row["system"] == "artist-only" else None
            known = {x for x, _, _ in points[row["task"]]}
            if alpha is not None and alpha not in known and found["auc_pr_macro"] is not None:
                points[row["task"]].append((alpha, found["auc_pr_macro"], found["ci"].get("auc_pr_macro")))
    shown = {task: sorted(of_task) for task, of_task in points.items() if of_task}
    if len({alpha for of_task in shown.values() for alpha, _, _ in of_task}) < 2:
        return ""
    return f"""<section><h2>The effect of alpha</h2><figure>{experiment_plots.alphas(shown)}<figcaption>Recipes that
differ from paper in alpha alone; alpha 0 is the artist-only model.</figcaption></figure></section>"""


def _histories(results: Sequence[Result]) -> str:
    of_recipe: dict[tuple[str, int], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        run = result.run
        of_recipe[run.recipe, run.epochs][_MODEL_NAMES[run.tasks]].append(result.metrics.get("history", []))
    figures = "".join(
        f"<h3>{escape(recipe)}, {epochs} epochs</h3><figure>{experiment_plots.histories(of_model)}</figure>"
        for (recipe, epochs), of_model in sorted(of_recipe.items())
        if any(history for of in of_model.values() for history in of)
    )
    if not figures:
        return ""
    return f"""<section><h2>Training</h2><p class="note">A line a run. Above the loss, training dashed; below the share
of validation segments that are right, artist in blue and language in orange.</p>{figures}</section>"""
