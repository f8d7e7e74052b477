"""Comparison: Table 1 out of the stored runs of an experiment: every system's scores, and how far they are apart.

The folds of a seed are pooled before they are scored; a score is the mean over the seeds. Songs are drawn once for all
systems of a task, so that differences are paired. Shares, 0 to 1. A cell is a (seed, fold).
Legend: N samples (tracks or segments), C classes, R resamples.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from mtl_core import metrics
from mtl_core.experiment import BOTH, Result
from mtl_core.labels import MISSING, TASKS, Vocabulary

LEVELS = ("tracks", "segments")
SCORES = ("auc_pr_macro", "auc_roc_macro", "auc_pr_micro", "auc_roc_micro", "top_1", "top_5")
MULTI, PRIOR, VIA_ARTIST = "multi-task", "class prior", "sum of artist-only's P(artist)"
REFERENCE_RECIPE = "paper"
SEGMENT_SHARE = 5  # segments are many: their intervals come of a fifth of the resamples

#: What the source reports for its own data set, which is not public: for the shape of the table, never to be compared.
REPORTED = {
    "artist": {"artist-only": (0.3978, 0.7045), MULTI: (0.4726, 0.7488)},
    "language": {MULTI: (0.4847, 0.7600)},
}

Cells = Mapping[tuple[int, int], Mapping[str, Result]]


@dataclass(frozen=True)
class System:
    """What says something of a task: a row of the table.

    Args:
        task: of `TASKS`.
        name: for people.
        variants: whose runs it is computed from, of `experiment.VARIANTS`: the first that is stored.
    """

    task: str
    name: str
    variants: tuple[str, ...]


SYSTEMS = tuple(
    system
    for task in TASKS
    for system in (
        System(task, f"{task}-only", (task,)),
        System(task, MULTI, (BOTH,)),
        *([System(task, VIA_ARTIST, ("artist",))] if task == "language" else []),
        System(task, PRIOR, (BOTH, task)),
    )
)

#: task, minuend, subtrahend
DIFFERENCES = (
    ("artist", MULTI, "artist-only"),
    ("language", MULTI, "language-only"),
    ("language", MULTI, VIA_ARTIST),
)


@dataclass(frozen=True)
class _Samples:
    """What a system says of the pooled test parts of one seed: probabilities (N, C), targets (N,), songs (N,)."""

    p_NC: np.ndarray
    t_N: np.ndarray
    songs_N: np.ndarray


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
        `groups`, one for each recipe and number of epochs: name, recipe, epochs, alpha, seeds, folds, left_out (keys of
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


def whole(cells: Cells) -> dict[tuple[int, int], Mapping[str, Result]]:
    """The cells to score: those that have every model that any has, of the seeds with the most such folds."""
    variants = {variant for of_cell in cells.values() for variant in of_cell}
    full = {cell: of_cell for cell, of_cell in sorted(cells.items()) if set(of_cell) == variants}
    folds_of = defaultdict(set)
    for seed, fold in full:
        folds_of[seed].add(fold)
    most = max(folds_of.values(), key=len, default=set())
    return {cell: of_cell for cell, of_cell in full.items() if folds_of[cell[0]] == most}


def alpha(result: Result) -> float | None:
    """The weight of the language loss; None for a model of one task."""
    sizes = {task: len(vocabulary) for task, vocabulary in result.heard.vocabularies.items()}
    if set(sizes) != set(TASKS):
        return None
    given = result.recipe.get("alpha")
    return sizes["artist"] / sizes["language"] if given is None else float(given)


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
        key = (tuple(_runs(cells, system)), system, level)
        if key not in self._known:
            self._known[key] = self._score(cells, system, level)
        return self._known[key]

    def _score(self, cells: Cells, system: System, level: str) -> _Scored:
        pooled = pool(cells, system, level)
        songs = np.concatenate([samples.songs_N for samples in pooled])
        resamples = self._resamples if level == "tracks" else self._resamples // SEGMENT_SHARE
        drawn = metrics.draws(songs, resamples=resamples, seed=self._seed)
        by_seed = [metrics.resampled(s.p_NC, s.t_N, s.songs_N, drawn) for s in pooled]
        return _Scored(
            seeds=[metrics.scores(s.p_NC, s.t_N, s.songs_N, resamples=0) for s in pooled],
            values_R={name: np.mean([values[name] for values in by_seed], 0) for name in metrics.HEADLINES},
        )


def _runs(cells: Cells, system: System) -> list[str]:
    return [next(of[v] for v in system.variants if v in of).run.key for of in cells.values()]


def pool(cells: Cells, system: System, level: str) -> list[_Samples]:
    """What a system says of the test parts, the folds of a seed together: one `_Samples` for each seed, in order.

    Raises:
        ValueError: folds of one seed test a song twice.
    """
    labels = sorted({label for of_cell in cells.values() for label in _labels(of_cell, system.task)})
    place = Vocabulary(tuple(labels))
    of_seed: dict[int, list[_Samples]] = defaultdict(list)
    for (seed, _), of_cell in sorted(cells.items()):
        own = _labels(of_cell, system.task)
        result = next(of_cell[variant] for variant in system.variants if variant in of_cell)
        p_NC = np.zeros((_size(result, level), len(labels)))
        said_labels, said_NC = _said(result, system, level)
        p_NC[:, place.encode(said_labels)] = said_NC
        tracks, repeats = result.heard.tracks, 1 if level == "tracks" else result.heard.n_segments
        truth = [label if label in own else None for label in tracks[system.task].to_pylist()]
        t_N = np.repeat(place.encode(truth), repeats)
        songs_N = np.repeat(np.array(tracks["track_id"].to_pylist()), repeats)
        known = t_N != MISSING
        of_seed[seed].append(_Samples(p_NC[known], t_N[known], songs_N[known]))
    pooled = []
    for parts in of_seed.values():
        if len(np.unique(np.concatenate([np.unique(s.songs_N) for s in parts]))) < sum(
            len(np.unique(s.songs_N)) for s in parts
        ):
            raise ValueError("folds of one seed test a song twice")
        joined = (np.concatenate([getattr(s, name) for s in parts]) for name in ("p_NC", "t_N", "songs_N"))
        pooled.append(_Samples(*joined))
    return pooled


def _labels(of_cell: Mapping[str, Result], task: str) -> set[str]:
    """The classes of a task in a cell's training part."""
    for result in of_cell.values():
        if task in result.heard.vocabularies:
            return set(result.heard.vocabularies[task].labels)
    return {label for result in of_cell.values() for label in result.language_of.values()}


def _size(result: Result, level: str) -> int:
    return len(result.heard.tracks) if level == "tracks" else sum(result.heard.n_segments)


def _said(result: Result, system: System, level: str) -> tuple[list[str], np.ndarray]:
    """Labels and the probabilities (N, C) of them."""
    heard, task = result.heard, "artist" if system.name == VIA_ARTIST else system.task
    labels = list(heard.vocabularies[task].labels)
    if system.name == PRIOR:
        return labels, np.tile(result.priors[task], (_size(result, level), 1))
    if level == "tracks":
        p_NC = heard.probabilities(task)
    else:
        logits_NC = np.concatenate(heard.logits[task]).astype(np.float64)
        p_NC = softmax(logits_NC / heard.aggregation.temperature[task], axis=1)
    if system.name != VIA_ARTIST:
        return labels, p_NC
    languages = Vocabulary.of(result.language_of.values())
    language_A = languages.encode([result.language_of.get(artist) for artist in labels])
    return list(languages.labels), metrics.language_of_artists(p_NC, language_A, len(languages))
