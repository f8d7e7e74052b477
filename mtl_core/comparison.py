"""Comparison: Table 1 out of the stored runs of an experiment: every system's scores, and how far they are apart.

The folds of a seed are pooled before they are scored; a score is the mean over the seeds. Songs are drawn once for all
systems of a task, so that differences are paired. Shares, 0 to 1. A cell is a (seed, fold).
Legend: N samples (tracks or segments), C classes, R resamples.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mtl_core import metrics
from mtl_core.experiment import BOTH, Result
from mtl_core.labels import TASKS
from mtl_core.pooling import MULTI, PRIOR, SYSTEMS, VIA_ARTIST, Cells, System, pool, runs_of, whole
from mtl_core.recipes import Recipe

LEVELS = ("tracks", "segments")
SCORES = ("auc_pr_macro", "auc_roc_macro", "auc_pr_micro", "auc_roc_micro", "top_1", "top_5")
REFERENCE_RECIPE = "paper"
SEGMENT_SHARE = 5  # segments are many: their intervals come of a fifth of the resamples

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


@dataclass(frozen=True)
class _Scored:
    """Of a system, a level and cells: `metrics.scores` of each seed, and headline -> (R,) resampled means over them."""

    seeds: list[dict[str, Any]]
    values_R: dict[str, np.ndarray]

    def mean(self, name: str) -> float | None:
        values = [scores[name] for scores in self.seeds]
        return None if None in values else float(np.mean(values))


def table(results: Sequence[Result], *, resamples: int = metrics.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Table 1, as JSON values.

    Args:
        results: stored runs of one kind of split, on the same mels; at least one.
        resamples: of the bootstrap over songs, 0 for no intervals; segments take a fifth of them.
        seed: of the bootstrap.

    Returns:
        `groups`, one for each recipe and number of epochs: name, recipe, epochs, alpha (of its multi-task model),
        only_alpha_differs (from `paper`), seeds, folds, left_out (keys of
        runs that lack others of their cell or seed), `systems` (task, system and, by level, the scores with `ci`,
        `by_seed`, n, classes, classes_covered and chance) and `differences` (task, of, minus and, by level, headline ->
        difference and `ci`); `against_paper`: the same of each group's multi-task model minus the `paper` recipe's.
    """
    of_group: dict[tuple[str, int], dict[tuple[int, int], dict[str, Result]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        run = result.run
        of_group[run.recipe, run.epochs][run.seed, run.fold][run.tasks] = result
    scorer = _Scorer(resamples, seed)
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


def _group(name: str, key: tuple[str, int], cells: Cells, scorer: "_Scorer") -> dict[str, Any]:
    kept = whole(cells)
    kept_keys = {result.run.key for of_cell in kept.values() for result in of_cell.values()}
    every = [result for of_cell in cells.values() for result in of_cell.values()]
    present = [system for system in SYSTEMS if _can(kept, system)]
    systems = []
    for system in present:
        levels = {level: _row(scorer.scored(kept, system, level)) for level in LEVELS}
        systems.append({"task": system.task, "system": system.name, **levels})
    found = {(system.task, system.name): system for system in present}
    differences = [
        {"task": task, "of": a, "minus": b}
        | {level: _difference(*(scorer.scored(kept, found[task, x], level) for x in (a, b))) for level in LEVELS}
        for task, a, b in DIFFERENCES
        if (task, a) in found and (task, b) in found
    ]
    return {
        "name": name,
        "recipe": key[0],
        "epochs": key[1],
        "only_alpha_differs": all(only_alpha_differs(result.recipe) for result in every),
        "alpha": next((alpha(result) for result in every if result.run.tasks == BOTH), None),
        "seeds": sorted({seed for seed, _ in kept}),
        "folds": sorted({fold for _, fold in kept}),
        "left_out": sorted(result.run.key for result in every if result.run.key not in kept_keys),
        "systems": systems,
        "differences": differences,
    }


def _against(name: str, cells: Cells, paper_name: str, paper: Cells, scorer: "_Scorer") -> list[dict[str, Any]]:
    """The multi-task model's gain over the reference's on the cells that both have."""
    both = [{cell: {BOTH: r[BOTH]} for cell, r in of.items() if BOTH in r} for of in (cells, paper)]
    common = both[0].keys() & both[1].keys()
    ours, theirs = (whole({cell: of[cell] for cell in sorted(common)}) for of in both)
    systems = [system for system in SYSTEMS if system.name == MULTI and _can(ours, system)]
    return [
        {"task": system.task, "of": name, "minus": paper_name, "seeds": sorted({seed for seed, _ in ours})}
        | {
            level: _difference(scorer.scored(ours, system, level), scorer.scored(theirs, system, level))
            for level in LEVELS
        }
        for system in systems
    ]


def alpha(result: Result) -> float | None:
    """The weight of the language loss; None for a model of one task."""
    sizes = {task: len(vocabulary) for task, vocabulary in result.heard.vocabularies.items()}
    if set(sizes) != set(TASKS):
        return None
    given = result.recipe.get("alpha")
    return sizes["artist"] / sizes["language"] if given is None else float(given)


def only_alpha_differs(numbers: Mapping[str, Any]) -> bool:
    """Whether a recipe is `paper` but for alpha and the number of epochs."""
    paper = asdict(Recipe())
    return all(numbers.get(name, value) == value for name, value in paper.items() if name not in ("alpha", "epochs"))


def _can(cells: Cells, system: System) -> bool:
    return bool(cells) and all(any(variant in of_cell for variant in system.variants) for of_cell in cells.values())


def _row(scored: _Scored) -> dict[str, Any]:
    """A system's scores at one level."""
    first = scored.seeds[0]
    values = {name: scored.mean(name) for name in SCORES}
    ci = {name: metrics.interval(values_R, values[name]) for name, values_R in scored.values_R.items()}
    return {
        **values,
        "ci": {name: None if ends is None else [max(0.0, ends[0]), min(1.0, ends[1])] for name, ends in ci.items()},
        "by_seed": {name: [scores[name] for scores in scored.seeds] for name in SCORES},
        "n": [scores["n"] for scores in scored.seeds],
        "classes": first["classes"],
        "classes_covered": [scores["classes_covered"] for scores in scored.seeds],
        "chance": first["chance"],
    }


def _difference(a: _Scored, b: _Scored) -> dict[str, Any]:
    """headline -> a minus b and its 95% interval."""
    found = {}
    for name, values_R in a.values_R.items():
        ends = a.mean(name), b.mean(name)
        difference = None if ends[0] is None or ends[1] is None else ends[0] - ends[1]
        ci = metrics.interval(values_R - b.values_R[name], difference)
        found[name] = {"difference": difference, "ci": ci}
    return found


class _Scorer:
    """Scores of systems, each computed once; the draws of songs depend on the songs alone."""

    def __init__(self, resamples: int, seed: int) -> None:
        self._resamples, self._seed = resamples, seed
        self._known: dict[tuple[Any, ...], _Scored] = {}

    def scored(self, cells: Cells, system: System, level: str) -> _Scored:
        key = (tuple(runs_of(cells, system)), system, level)
        if key not in self._known:
            self._known[key] = self._score(cells, system, level)
        return self._known[key]

    def _score(self, cells: Cells, system: System, level: str) -> _Scored:
        pooled = pool(cells, system, level)
        songs = np.concatenate([samples.songs_N for samples in pooled])
        resamples = self._resamples if level == "tracks" else self._resamples // SEGMENT_SHARE
        resamples = 0 if system.name == PRIOR else resamples  # it says the same of every song
        drawn = metrics.draws(songs, resamples=resamples, seed=self._seed)
        by_seed = [metrics.resampled(s.p_NC, s.t_N, s.songs_N, drawn) for s in pooled]
        return _Scored(
            seeds=[metrics.scores(s.p_NC, s.t_N, s.songs_N, resamples=0) for s in pooled],
            values_R={name: np.mean([values[name] for values in by_seed], 0) for name in metrics.HEADLINES},
        )
