"""Table 1 for people: the result of `table1.build_table1` as tables of percents with one decimal."""

from collections.abc import Mapping
from typing import Any

from mtl_core.evaluation.baselines import CHANCE_KEYS
from mtl_core.evaluation.pages.score_text import SCORE_NAMES, difference_cell, score_cell
from mtl_core.experiments.scoring import SCORED_LEVELS
from mtl_core.experiments.text_tables import Rows, Section, group_title, left_out_notes

TABLE1_NOTE = (
    "Percent. In brackets: 95% bootstrap interval over songs, from the same resamples for both sides of a difference. "
    "The folds are pooled and then scored; a score is the mean over the seeds. Macro scores are means over the covered "
    "classes. Via artist-only: P(language) is the sum of the artist-only model's P(artist) over the language's artists."
)
REPORTED_NOTE = (
    "Reported by the source for its own data set, which is not public. It shows the shape of the table and is never a "
    "figure of this project."
)


def table1_title(table: Mapping[str, Any]) -> str:
    """The title with the kind of split: "Table 1, split kfold by song"."""
    by = f" by {table['group_column']}" if table["group_column"] else ""
    return f"Table 1, split {table['split']}{by}"


def table1_sections(table: Mapping[str, Any]) -> list[Section]:
    """The table on tracks and on segments, and the source's own figures."""
    notes = {"tracks": [TABLE1_NOTE, *left_out_notes(table["groups"])]}
    return [
        *(
            Section(heading=f"On {level}", notes=notes.get(level, ()), tables=_level_tables(table, level))
            for level in SCORED_LEVELS
        ),
        Section(heading="Reported by the source", notes=[REPORTED_NOTE], tables=[("", _reported_rows(table))]),
    ]


def _level_tables(table: Mapping[str, Any], level: str) -> list[tuple[str, Rows]]:
    """A table for each group, and one of the differences to the reference recipe."""
    columns = [level, *SCORE_NAMES.values(), "classes"]
    tables: list[tuple[str, Rows]] = []
    for group in table["groups"]:
        rows: list[list[str]] = []
        chance_rows: dict[str, list[str]] = {}
        for system in group["systems"]:
            task, scores = system["task"], system[level]
            cells = [score_cell(scores[key], scores["ci"].get(key)) for key in SCORE_NAMES]
            covered = "/".join(str(n) for n in sorted(set(scores["classes_covered"])))
            rows.append([f"{task}: {system['system']}", *cells, f"{covered} of {scores['classes']}"])
            chance = [score_cell(scores["chance"][CHANCE_KEYS[key]]) for key in SCORE_NAMES]
            chance_rows.setdefault(task, [f"{task}: chance", *chance, ""])
        differences = [_difference_row(row, level) for row in group["differences"]]
        tables.append((group_title(group), [columns, *rows, *chance_rows.values(), *differences]))
    for reference, against in table["against"].items():
        systems = " and ".join(dict.fromkeys(row["system"] for row in against))
        differences = [_difference_row(row, level) for row in against]
        tables.append((f"{systems} of each recipe minus {reference}", [columns, *differences]))
    return tables


def difference_name(row: Mapping[str, Any]) -> str:
    """The name of a difference: "artist: multi-task − artist-only"."""
    return f"{row['task']}: {row['of']} \N{MINUS SIGN} {row['minus']}"


def _difference_row(row: Mapping[str, Any], level: str) -> list[str]:
    cells = [
        difference_cell(row[level][key]["difference"], row[level][key]["ci"]) if key in row[level] else ""
        for key in SCORE_NAMES
    ]
    return [difference_name(row), *cells, ""]


def _reported_rows(table: Mapping[str, Any]) -> Rows:
    return [
        ["reported by the source", "AUC-PR", "AUC-ROC"],
        *(
            [f"{task}: {name}", f"{100 * areas['auc_pr']:.2f}", f"{100 * areas['auc_roc']:.2f}"]
            for task, systems in table["reported_by_the_paper"].items()
            for name, areas in systems.items()
        ),
    ]
