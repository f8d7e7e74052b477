"""Comparison page: what a new model does better and worse than the one in use, as one HTML file to decide by."""

from collections.abc import Mapping
from html import escape
from typing import Any

from mtl_core.evaluation.pages.html_page import header, page

_NAMES = {"auc_pr_macro": "AUC-PR macro", "top_1": "top-1", "precision": "names that are right", "coverage": "named"}


def comparison_page(result: Mapping[str, Any]) -> str:
    """The page of a comparison, the content of comparison.json."""
    facts = {
        "new": f"{result['new']['model_id']} in {result['new']['model']}",
        "in use": f"{result['old']['model_id']} in {result['old']['model']}",
        "compared on": result["on"],
        "same trunk": "yes: the next night tags most tracks from the table"
        if result["same_trunk"]
        else "no: the next night reads audio",
    }
    sections = []
    for task, of in result["tasks"].items():
        rows = "".join(
            f"<tr><th>{name}</th><td>{_percent(of['scores'][score]['old'])}</td>"
            f"<td>{_percent(of['scores'][score]['new'])}</td><td>{escape(_points(of['scores'][score]))}</td></tr>"
            for score, name in _NAMES.items()
        )
        said = "worse" if of["worse"] else "not worse"
        sections.append(
            f"<section class='{task}'><h2>{task}: the new model is {said}</h2>"
            f"<p class='note'>{of['n']:,} tracks that neither model was trained on. In brackets: 95 % bootstrap "
            "intervals over songs, in pairs.</p><div class='scroll'><table class='scores'><thead><tr><th></th>"
            f"<th>in use</th><th>new</th><th>difference, points</th></tr></thead><tbody>{rows}</tbody></table></div>"
            f"<h3>Tags</h3>{_changes(of['changed'])}</section>"
        )
    if table := result.get("table"):
        source = "from their embeddings" if table["source"] == "embeddings" else "from their audio"
        left_out = f"; {table['left_out']:,} more could not be" if table["left_out"] else ""
        sections.append(
            f"<section><h2>The tags of the catalogue</h2><p class='note'>{table['n']:,} tracks of the night's table, "
            f"drawn at random, were tagged anew {source}{left_out}.</p>"
            + "".join(f"<h3>{task}</h3>{_changes(changed)}" for task, changed in table["tasks"].items())
            + "</section>"
        )
    title = f"The new model is {'worse' if result['worse'] else 'not worse'}"
    return page(title, header(title, facts) + "".join(sections))


def _changes(changed: Mapping[str, int]) -> str:
    rows = "".join(
        f"<tr><th>{name}</th><td>{changed[key]:,}</td></tr>"
        for key, name in (
            ("same", "stay the same"),
            ("another_name", "get another name"),
            ("named_now", "get a name instead of null"),
            ("null_now", "get null instead of a name"),
        )
    )
    return f"<div class='scroll'><table class='scores'><tbody>{rows}</tbody></table></div>"


def verdict(result: Mapping[str, Any]) -> str:
    """The same in a few lines."""
    lines = [f"{result['new']['model_id']} against {result['old']['model_id']}, on {result['on']}"]
    for task, of in result["tasks"].items():
        for score, name in _NAMES.items():
            lines.append(f"{task}, {name}: {_difference(of['scores'][score])}")
        lines.append(f"{task}: of {of['n']:,} tags {_changes_text(of['changed'])}")
    if table := result.get("table"):
        for task, changed in table["tasks"].items():
            lines.append(f"{task}: of {table['n']:,} tags in the table {_changes_text(changed)}")
    margin = f" by more than {result['margin']:.1%}" if result["margin"] else ""
    lines.append(f"the new model is {'WORSE' + margin if result['worse'] else 'not worse' + margin}")
    return "\n".join(lines)


def _changes_text(changed: Mapping[str, int]) -> str:
    return (
        f"{changed['same']:,} stay, {changed['another_name']:,} get another name, {changed['named_now']:,} a name "
        f"instead of null, {changed['null_now']:,} null instead of a name"
    )


def _difference(of: Mapping[str, Any]) -> str:
    if of["difference"] is None:
        return "not defined"
    return f"{_percent(of['new'])}, was {_percent(of['old'])}: {_points(of)} points"


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"


def _points(of: Mapping[str, Any]) -> str:
    if of["difference"] is None:
        return "not defined"
    interval = "" if of["ci"] is None else f" [{100 * of['ci'][0]:+.1f}, {100 * of['ci'][1]:+.1f}]"
    return f"{100 * of['difference']:+.1f}{interval}"
