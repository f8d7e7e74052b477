"""Score text: the names of scores for people, and scores as percent with one decimal."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_core.inference.tagging.unknown import NOTHING_IS_NAMED

#: key in metrics.json and table1.json -> name
SCORE_NAMES = {
    "auc_pr_macro": "AUC-PR macro",
    "auc_roc_macro": "AUC-ROC macro",
    "auc_pr_micro": "AUC-PR micro",
    "auc_roc_micro": "AUC-ROC micro",
    "top_1": "top-1",
    "top_5": "top-5",
}
NO_VALUE = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """A share, 0 to 1, as percent: "41.3%"."""
    return NO_VALUE if share is None else f"{100 * share:.1f}%"


def interval(ci: Sequence[float] | None) -> str:
    """The interval of a share: "[38.0, 44.9]"; "" without one."""
    return "" if ci is None else f"[{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def score_cell(share: float | None, ci: Sequence[float] | None = None) -> str:
    """A share in a table of percents, with its interval if it has one: "41.3 [38.0, 44.9]"."""
    return NO_VALUE if share is None else f"{100 * share:.1f} {interval(ci)}".rstrip()


def difference_cell(difference: float | None, ci: Sequence[float] | None) -> str:
    """A difference of two shares in a table of percents, with signs: "+1.4 [-0.2, +3.1]"."""
    if difference is None:
        return NO_VALUE
    return f"{100 * difference:+.1f}" + ("" if ci is None else f" [{100 * ci[0]:+.1f}, {100 * ci[1]:+.1f}]")


def out_of_fold_lines(metrics: Mapping[str, Any]) -> list[str]:
    """A line for each task of a cross-fitted model, from the metrics in its artifact."""
    lines = []
    for task, scores in metrics["out_of_fold"].items():
        tracks, unknown = scores["tracks"], scores["unknown"]
        named = next((row for row in unknown["named"] if row["unknown_share"] == metrics["unknown_share"]), None)
        names = ""
        if unknown["threshold"] is not None and unknown["threshold"] >= NOTHING_IS_NAMED:
            names = f"; no score reaches a precision of {percent(metrics['precision'])}: nothing is named"
        elif named is not None:
            names = (
                f"; {percent(named['coverage'])} of them get a name, {percent(named['precision'])} of all names are "
                f"right where {percent(metrics['unknown_share'])} of the tracks are of unknown artists"
            )
        linear = scores["baselines"]["linear"]
        lines.append(
            f"{task}: {percent(tracks['top_1'])} of {tracks['n']:,} new songs of known artists right (the linear "
            f"baseline: {percent(linear['top_1'])}){names}"
        )
    return lines
