"""Table 1: the scores of every system on the stored runs of an experiment, and their differences.

Only runs with their recipe's own alpha are in the table; `alpha_sweep` compares the others. Scores are shares, 0 to 1.
"""

from collections.abc import Sequence
from typing import Any

from mtl_core.dataset.vocabulary import TASKS
from mtl_core.experiments.pooling import (
    LINEAR_SYSTEMS,
    MULTI,
    SYSTEMS,
    VIA_ARTIST,
    RunGroup,
    System,
    complete_cells,
    group_runs,
)
from mtl_core.experiments.run_store import BOTH, LINEAR, RunResult
from mtl_core.experiments.scoring import BOOTSTRAP_SEED, SCORED_LEVELS, Scorer, difference, is_scorable, summary

#: What every recipe is compared with, in the order of the table.
REFERENCES = (LINEAR, "paper")

#: The source's figures for its own data set, which is not public. They show the shape of the table and cannot be
#: compared with ours.
REPORTED = {
    "artist": {"artist-only": (0.3978, 0.7045), MULTI: (0.4726, 0.7488)},
    "language": {MULTI: (0.4847, 0.7600)},
}

#: task, minuend, subtrahend
DIFFERENCES = (
    ("artist", MULTI, "artist-only"),
    ("language", MULTI, "language-only"),
    ("language", MULTI, VIA_ARTIST),
)


def build_table1(results: Sequence[RunResult], scorer: Scorer) -> dict[str, Any]:
    """Table 1, as JSON values, of stored runs (at least one) of one kind of split, on the same mels.

    Returns:
        `groups`, one for each recipe and number of epochs: name, recipe, epochs, alpha (of its multi-task model),
        seeds, folds, left_out (keys of runs whose cell or seed is not complete), `systems` (task, system and, by level,
        the scores with `ci`, `by_seed`, n, classes, classes_covered and chance) and `differences` (task, of, minus and,
        by level, headline -> difference and `ci`). `against`: reference -> the same differences of each recipe's
        multi-task model (without one, of its models of one task) minus the linear baseline or the `paper` recipe.
    """
    groups = group_runs(result for result in results if result.run.alpha is None)
    order = {name: position for position, name in enumerate(REFERENCES)}
    groups.sort(key=lambda group: order.get(group.recipe, len(order)))
    names = [_group_name(group, groups) for group in groups]
    against: dict[str, list[dict[str, Any]]] = {}
    for reference in REFERENCES:
        references = [i for i, group in enumerate(groups) if group.recipe == reference]
        others = [i for i, group in enumerate(groups) if group.recipe not in (reference, LINEAR)]
        for i in others if references else ():
            same_epochs = [j for j in references if groups[j].epochs == groups[i].epochs]
            j = (same_epochs or references)[-1]
            rows = _against_reference(groups[i], groups[j], scorer)
            against.setdefault(reference, []).extend({"of": names[i], "minus": names[j]} | row for row in rows)
    run = results[0].run
    return {
        "fingerprint": results[0].fingerprint,
        "split": run.split,
        "group_column": run.group_column,
        "resamples": scorer.resamples,
        "bootstrap_seed": BOOTSTRAP_SEED,
        "groups": [{"name": name} | _score_group(group, scorer) for name, group in zip(names, groups, strict=True)],
        "against": against,
        "reported_by_the_paper": {
            task: {name: {"auc_pr": pr, "auc_roc": roc} for name, (pr, roc) in systems.items()}
            for task, systems in REPORTED.items()
        },
    }


def _group_name(group: RunGroup, groups: Sequence[RunGroup]) -> str:
    """The name of the recipe; with the epochs if there are several numbers of epochs."""
    is_only = sum(other.recipe == group.recipe for other in groups) == 1
    return group.recipe if is_only else f"{group.recipe} ({group.epochs} epochs)"


def _score_group(group: RunGroup, scorer: Scorer) -> dict[str, Any]:
    cells = group.complete
    possible = LINEAR_SYSTEMS if group.recipe == LINEAR else SYSTEMS
    systems = {(system.task, system.name): system for system in possible if is_scorable(cells, system)}
    multi_task_runs = [cell[BOTH] for cell in group.cells.values() if BOTH in cell]
    return {
        "recipe": group.recipe,
        "alpha": multi_task_runs[0].alpha if multi_task_runs else None,
        **group.describe(),
        "systems": [
            {"task": task, "system": name}
            | {level: summary(scorer.scored(cells, system, level)) for level in SCORED_LEVELS}
            for (task, name), system in systems.items()
        ],
        "differences": [
            {"task": task, "of": a, "minus": b}
            | {
                level: difference(*(scorer.scored(cells, systems[task, name], level) for name in (a, b)))
                for level in SCORED_LEVELS
            }
            for task, a, b in DIFFERENCES
            if (task, a) in systems and (task, b) in systems
        ],
    }


def _against_reference(group: RunGroup, reference: RunGroup, scorer: Scorer) -> list[dict[str, Any]]:
    """The differences of two groups on the cells that both have: of multi-task models, else of models of one task."""
    rows = []
    for task in TASKS:
        for system in (System(task, MULTI, (BOTH,)), System(task, f"{task}-only", (task,))):
            (variant,) = system.variants
            runs = [
                {at: {variant: cell[variant]} for at, cell in cells.items() if variant in cell}
                for cells in (group.cells, reference.cells)
            ]
            common = sorted(runs[0].keys() & runs[1].keys())
            ours, theirs = (complete_cells({at: cells[at] for at in common}) for cells in runs)
            if ours:
                seeds = sorted({seed for seed, _ in ours})
                levels = {
                    level: difference(*(scorer.scored(cells, system, level) for cells in (ours, theirs)))
                    for level in SCORED_LEVELS
                }
                rows.append({"task": task, "system": system.name, "seeds": seeds, **levels})
                break
    return rows
