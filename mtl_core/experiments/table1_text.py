"""Table 1 for people: what `comparison.table` found, as text for a terminal and as Markdown. Percent, one decimal."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_core.experiments.scoring import LEVELS

_COLUMNS = {
    "auc_pr_macro": "AUC-PR macro",
    "auc_roc_macro": "AUC-ROC macro",
    "auc_pr_micro": "PR micro",
    "auc_roc_micro": "ROC micro",
    "top_1": "top-1",
    "top_5": "top-5",
}
_CHANCE = {
    "auc_pr_macro": "auc_pr_macro",
    "auc_roc_macro": "auc_roc",
    "auc_pr_micro": "auc_pr_micro",
    "auc_roc_micro": "auc_roc",
    "top_1": "top_1",
    "top_5": "top_5",
}
_NONE = "\N{EN DASH}"
TABLE1_NOTE = (
    "Percent. In brackets the 95% bootstrap interval over songs, the same resamples for both sides of a difference. "
    "Folds are pooled, then scored; a score is the mean over the seeds. Macro is over the classes covered. "
    "Via artist-only: P(language) is the sum of the artist-only model's P(artist) over the language's artists."
)
REPORTED_NOTE = (
    "Reported by the source for its own data set, which is not public: a reference for the shape of the table, never "
    "a figure of this project."
)


def rows(table: Mapping[str, Any], level: str) -> list[tuple[str, list[list[str]]]]:
    """(title, its lines of cells) of every block of the table at one level; the first cell names the line."""
    blocks = []
    for group in table["groups"]:
        lines = []
        for row in group["systems"]:
            covered = "/".join(str(n) for n in sorted(set(row[level]["classes_covered"])))
            name = f"{row['task']}: {row['system']}"
            cells = [score(row[level][key], row[level]["ci"].get(key)) for key in _COLUMNS]
            lines.append([name, *cells, f"{covered} of {row[level]['classes']}"])
        for task in dict.fromkeys(row["task"] for row in group["systems"]):
            chance = next(row for row in group["systems"] if row["task"] == task)[level]["chance"]
            lines.append([f"{task}: chance", *(score(chance[_CHANCE[key]], None) for key in _COLUMNS), ""])
        lines += [
            [f"{row['task']}: {row['of']} \N{MINUS SIGN} {row['minus']}", *_gains(row[level]), ""]
            for row in group["differences"]
        ]
        blocks.append((title(group), lines))
    if table["against_paper"]:
        lines = [
            [f"{row['task']}: {row['of']} \N{MINUS SIGN} {row['minus']}", *_gains(row[level]), ""]
            for row in table["against_paper"]
        ]
        systems = " and ".join(dict.fromkeys(row["system"] for row in table["against_paper"]))
        blocks.append((f"{systems} of each recipe minus that of paper", lines))
    return blocks


def title(group: Mapping[str, Any]) -> str:
    """What a block is of."""
    folds = f", {len(group['folds'])} folds pooled" if len(group["folds"]) > 1 else ""
    folds = folds or (f", fold {group['folds'][0]}" if group["folds"] and group["folds"] != [0] else "")
    seeds = ", seed" + ("s " if len(group["seeds"]) > 1 else " ") + " ".join(map(str, group["seeds"]))
    weight = "" if group["alpha"] is None else f", alpha {group['alpha']:g}"
    return f"{group['name']}: {group['epochs']} epochs{weight}{folds}{seeds}"


def reported(table: Mapping[str, Any]) -> list[list[str]]:
    """Lines of the source's own figures: name, AUC-PR, AUC-ROC."""
    return [
        [f"{task}: {name}", f"{100 * found['auc_pr']:.2f}", f"{100 * found['auc_roc']:.2f}"]
        for task, of_task in table["reported_by_the_paper"].items()
        for name, found in of_task.items()
    ]


def head(level: str) -> list[str]:
    """Names of the columns of `rows`."""
    return [level, *_COLUMNS.values(), "classes"]


def format_table1(table: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    by = f" by {table['group_column']}" if table["group_column"] else ""
    lines = [f"Table 1, split {table['split']}{by}"]
    for level in LEVELS:
        for name, block in rows(table, level):
            lines += ["", name, *aligned([head(level), *block])]
    for group in table["groups"]:
        if group["left_out"]:
            lines += ["", f"left out of {group['name']} until its seed is complete: {', '.join(group['left_out'])}"]
    lines += ["", *aligned([["reported by the source", "AUC-PR", "AUC-ROC"], *reported(table)])]
    return "\n".join([*lines, "", TABLE1_NOTE, REPORTED_NOTE])


def table1_markdown(table: Mapping[str, Any]) -> str:
    """The table for a document."""
    lines = ["# Table 1", "", f"Split `{table['split']}`. {TABLE1_NOTE}"]
    for level in LEVELS:
        lines += ["", f"## On {level}"]
        for name, block in rows(table, level):
            lines += ["", f"**{name}**", "", *piped([head(level), *block])]
    lines += ["", "## Reported by the source", "", REPORTED_NOTE, ""]
    return "\n".join([*lines, *piped([["", "AUC-PR", "AUC-ROC"], *reported(table)])]) + "\n"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells for a terminal."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def piped(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as Markdown; the first names the columns."""
    marked = [f"| {' | '.join(line)} |" for line in lines]
    return [marked[0], f"| --- |{' ---: |' * (len(lines[0]) - 1)}", *marked[1:]]


def score(value: float | None, ci: Sequence[float] | None) -> str:
    """A cell of a score."""
    if value is None:
        return _NONE
    return f"{100 * value:.1f}" + ("" if ci is None else f" [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]")


def gain(found: Mapping[str, Any]) -> str:
    """A cell of a difference."""
    if found["difference"] is None:
        return _NONE
    ends = "" if found["ci"] is None else f" [{100 * found['ci'][0]:+.1f}, {100 * found['ci'][1]:+.1f}]"
    return f"{100 * found['difference']:+.1f}{ends}"


def _gains(found: Mapping[str, Any]) -> list[str]:
    return [gain(found[key]) if key in found else "" for key in _COLUMNS]
