"""Comparison: Table 1 out of the stored runs of an experiment: every system's scores, and how far they are apart.

Every model has its recipe's own alpha; `alphas` compares the others. Shares, 0 to 1. A cell is a (seed, fold).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_core.dataset.vocabulary import TASKS
from mtl_core.evaluation import metrics
from mtl_core.experiments.pooling import MULTI, SYSTEMS, VIA_ARTIST, Cells, System, complete_cells
from mtl_core.experiments.run_store import BOTH, RunResult
from mtl_core.experiments.scoring import LEVELS, Scorer, difference, is_scorable, summary

REFERENCE_RECIPE = "paper"

#: What the source reports for its own data set, which is not public: for the shape of the table, never to be compared.
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


def table(
    results: Sequence[RunResult],
    *,
    resamples: int = metrics.RESAMPLES,
    seed: int = 0,
    songs: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Table 1, as JSON values.

    Args:
        results: stored runs of one kind of split, on the same mels; at least one.
        resamples: of the bootstrap over songs, 0 for no intervals; segments take a fifth of them.
        seed: of the bootstrap.
        songs: track_id -> its song, where several tracks are versions of one; by default each is a song.

    Returns:
        `groups`, one for each recipe and number of epochs: name, recipe, epochs, alpha (of its multi-task model),
        seeds, folds, left_out (keys of runs that lack others of their cell or seed), `systems` (task, system and, by
        level, the scores with `ci`, `by_seed`, n, classes, classes_covered and chance) and `differences` (task, of,
        minus and, by level, headline -> difference and `ci`); `against_paper`: the same of each group's multi-task
        model (without one, its models of one task) minus the `paper` recipe's.
    """
    of_group: dict[tuple[str, int], dict[tuple[int, int], dict[str, RunResult]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for result in results:
        run = result.run
        if run.alpha is None:
            of_group[run.recipe, run.epochs][run.seed, run.fold][run.tasks] = result
    scorer = Scorer(resamples, seed, songs)
    ordered = sorted(of_group, key=lambda key: (key[0] != REFERENCE_RECIPE, key))
    names = {key: _name(key, ordered) for key in ordered}
    groups = [_group(names[key], key, of_group[key], scorer) for key in ordered]
    paper = [key for key in ordered if key[0] == REFERENCE_RECIPE]
    against = []
    for key in ordered:
        if key[0] != REFERENCE_RECIPE and paper:
            other = (REFERENCE_RECIPE, key[1])
            reference = other if other in paper else paper[-1]
            against += _against(names[key], of_group[key], names[reference], of_group[reference], scorer)
    first = results[0]
    return {
        "fingerprint": first.fingerprint,
        "split": first.run.split,
        "group_column": first.run.group_column,
        "resamples": resamples,
        "bootstrap_seed": seed,
        "groups": groups,
        "against_paper": against,
        "reported_by_the_paper": {
            task: {name: {"auc_pr": pr, "auc_roc": roc} for name, (pr, roc) in rows.items()}
            for task, rows in REPORTED.items()
        },
    }


def _name(key: tuple[str, int], keys: Sequence[tuple[str, int]]) -> str:
    recipe, epochs = key
    alone = sum(other == recipe for other, _ in keys) == 1
    return recipe if alone else f"{recipe} ({epochs} epochs)"


def _group(name: str, key: tuple[str, int], cells: Cells, scorer: Scorer) -> dict[str, Any]:
    kept = complete_cells(cells)
    kept_keys = {result.run.key for of_cell in kept.values() for result in of_cell.values()}
    every = [result for of_cell in cells.values() for result in of_cell.values()]
    present = [system for system in SYSTEMS if is_scorable(kept, system)]
    systems = []
    for system in present:
        levels = {level: summary(scorer.scored(kept, system, level)) for level in LEVELS}
        systems.append({"task": system.task, "system": system.name, **levels})
    found = {(system.task, system.name): system for system in present}
    differences = [
        {"task": task, "of": a, "minus": b}
        | {level: difference(*(scorer.scored(kept, found[task, x], level) for x in (a, b))) for level in LEVELS}
        for task, a, b in DIFFERENCES
        if (task, a) in found and (task, b) in found
    ]
    return {
        "name": name,
        "recipe": key[0],
        "epochs": key[1],
        "alpha": next((alpha(result) for result in every if result.run.tasks == BOTH), None),
        "seeds": sorted({seed for seed, _ in kept}),
        "folds": sorted({fold for _, fold in kept}),
        "left_out": sorted(result.run.key for result in every if result.run.key not in kept_keys),
        "systems": systems,
        "differences": differences,
    }


def _against(name: str, cells: Cells, paper_name: str, paper: Cells, scorer: Scorer) -> list[dict[str, Any]]:
    """The gain over the reference on the cells that both have: of the multi-task models, or of those of one task."""
    gains = []
    for task in TASKS:
        for system in (System(task, MULTI, (BOTH,)), System(task, f"{task}-only", (task,))):
            (variant,) = system.variants
            both = [{cell: {variant: r[variant]} for cell, r in of.items() if variant in r} for of in (cells, paper)]
            common = both[0].keys() & both[1].keys()
            ours, theirs = (complete_cells({cell: of[cell] for cell in sorted(common)}) for of in both)
            if not ours:
                continue
            gain: dict[str, Any] = {"task": task, "system": system.name, "of": name, "minus": paper_name}
            gain["seeds"] = sorted({seed for seed, _ in ours})
            for level in LEVELS:
                gain[level] = difference(*(scorer.scored(of, system, level) for of in (ours, theirs)))
            gains.append(gain)
            break
    return gains


def alpha(result: RunResult) -> float | None:
    """The weight of the language loss; None for a model of one task."""
    sizes = {task: len(vocabulary) for task, vocabulary in result.heard.vocabularies.items()}
    if set(sizes) != set(TASKS):
        return None
    given = result.recipe.get("alpha")
    return sizes["artist"] / sizes["language"] if given is None else float(given)
