"""Pooling: the runs of an experiment in groups and cells, and the predictions of the test tracks of many runs.

A group is the runs of one recipe and number of epochs. A cell is a (seed, fold): its models were trained and tested on
the same songs. The test tracks of all folds of a seed are pooled.

Legend: N samples (tracks or segments), C classes, A artists.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_core.dataset.vocabulary import MISSING, TASKS, Vocabulary
from mtl_core.evaluation.baselines import language_probabilities
from mtl_core.experiments.run_store import BOTH, LINEAR, RunResult

MULTI, PRIOR, VIA_ARTIST = "multi-task", "class prior", "via artist-only"

#: (seed, fold) -> variant (see `Run.variant`) -> the run
Cells = Mapping[tuple[int, int], Mapping[str, RunResult]]


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """The runs of one recipe and number of epochs."""

    recipe: str
    epochs: int
    cells: Cells  # all runs of the group
    complete: Cells  # the cells that are scored, see `complete_cells`

    def describe(self) -> dict[str, Any]:
        """epochs, seeds and folds that are scored, and left_out: the keys of runs that are not; JSON values."""
        scored = {result.run.key for cell in self.complete.values() for result in cell.values()}
        keys = {result.run.key for cell in self.cells.values() for result in cell.values()}
        return {
            "epochs": self.epochs,
            "seeds": sorted({seed for seed, _ in self.complete}),
            "folds": sorted({fold for _, fold in self.complete}),
            "left_out": sorted(keys - scored),
        }


def group_runs(results: Iterable[RunResult]) -> list[RunGroup]:
    """The groups of runs, by recipe and number of epochs."""
    groups: dict[tuple[str, int], dict[tuple[int, int], dict[str, RunResult]]] = {}
    for result in results:
        run = result.run
        cells = groups.setdefault((run.recipe, run.epochs), {})
        cells.setdefault((run.seed, run.fold), {})[run.variant] = result
    return [
        RunGroup(recipe=recipe, epochs=epochs, cells=cells, complete=complete_cells(cells))
        for (recipe, epochs), cells in sorted(groups.items())
    ]


def complete_cells(cells: Cells) -> dict[tuple[int, int], Mapping[str, RunResult]]:
    """The cells to score: they have every model that any cell has, and their seed has the most such folds."""
    variants = {variant for cell in cells.values() for variant in cell}
    full = {at: cell for at, cell in sorted(cells.items()) if set(cell) == variants}
    folds_of_seed = defaultdict(set)
    for seed, fold in full:
        folds_of_seed[seed].add(fold)
    most_folds = max(folds_of_seed.values(), key=len, default=set())
    return {at: cell for at, cell in full.items() if folds_of_seed[at[0]] == most_folds}


@dataclass(frozen=True)
class System:
    """A source of predictions for a task: a row of Table 1."""

    task: str
    name: str
    variants: tuple[str, ...]  # of the runs it can be computed from (`Run.variant`); the first that a cell has is used

    def run_in(self, cell: Mapping[str, RunResult]) -> RunResult:
        """The run of a cell that the system is computed from."""
        return next(cell[variant] for variant in self.variants if variant in cell)


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
#: The rows of the linear baseline: its two tasks do not know of each other.
LINEAR_SYSTEMS = tuple(System(task, LINEAR, (BOTH, task)) for task in TASKS)


def run_keys(cells: Cells, system: System) -> list[str]:
    """Keys of the runs that a system is computed from."""
    return [system.run_in(cell).run.key for cell in cells.values()]


@dataclass(frozen=True)
class Samples:
    """A system's predictions for the test tracks of a seed: probabilities (N, C), targets (N,) and songs (N,)."""

    p_NC: np.ndarray
    t_N: np.ndarray
    songs_N: np.ndarray


def pool(cells: Cells, system: System, level: str, songs: Mapping[str, str] | None = None) -> list[Samples]:
    """A system's predictions for the test tracks, the folds of a seed together: one `Samples` a seed, in order.

    Args:
        cells: result of `complete_cells`.
        system: whose predictions.
        level: "tracks" or "segments".
        songs: track_id -> song, if several tracks are versions of one song; by default each track is a song.

    Raises:
        ValueError: two folds of a seed test the same song.
    """
    labels = {label for cell in cells.values() for label in _training_labels(cell, system.task)}
    vocabulary = Vocabulary(tuple(sorted(labels)))
    folds_of_seed: dict[int, list[Samples]] = defaultdict(list)
    for (seed, _), cell in sorted(cells.items()):
        folds_of_seed[seed].append(_cell_samples(cell, system, level, songs or {}, vocabulary))
    pooled = []
    for folds in folds_of_seed.values():
        songs_of_fold = [np.unique(samples.songs_N) for samples in folds]
        if len(np.unique(np.concatenate(songs_of_fold))) < sum(map(len, songs_of_fold)):
            raise ValueError("folds of one seed test a song twice")
        arrays = (np.concatenate([getattr(samples, name) for samples in folds]) for name in ("p_NC", "t_N", "songs_N"))
        pooled.append(Samples(*arrays))
    return pooled


def _cell_samples(
    cell: Mapping[str, RunResult], system: System, level: str, songs: Mapping[str, str], vocabulary: Vocabulary
) -> Samples:
    """Predictions in one cell, over the classes of `vocabulary`. Tracks whose label was not trained are left out."""
    result = system.run_in(cell)
    labels, cell_p_NC = _probabilities(result, system, level)
    p_NC = np.zeros((len(cell_p_NC), len(vocabulary)))
    p_NC[:, vocabulary.encode(labels)] = cell_p_NC
    tracks, repeats = result.predictions.tracks, 1 if level == "tracks" else result.predictions.n_segments
    cell_labels = _training_labels(cell, system.task)
    true = [label if label in cell_labels else None for label in tracks[system.task].to_pylist()]
    t_N = np.repeat(vocabulary.encode(true), repeats)
    track_songs = [songs.get(track_id, track_id) for track_id in tracks["track_id"].to_pylist()]
    songs_N = np.repeat(np.array(track_songs), repeats)
    labelled = t_N != MISSING
    return Samples(p_NC[labelled], t_N[labelled], songs_N[labelled])


def _training_labels(cell: Mapping[str, RunResult], task: str) -> set[str]:
    """The labels of a task among the training tracks of a cell."""
    for result in cell.values():
        if task in result.predictions.vocabularies:
            return set(result.predictions.vocabularies[task].labels)
    return {label for result in cell.values() for label in result.language_of.values()}


def _probabilities(result: RunResult, system: System, level: str) -> tuple[list[str], np.ndarray]:
    """The classes of a system and its probabilities (N, C)."""
    predictions, task = result.predictions, "artist" if system.name == VIA_ARTIST else system.task
    labels = list(predictions.vocabularies[task].labels)
    if system.name == PRIOR:
        n = len(predictions.tracks) if level == "tracks" else sum(predictions.n_segments)
        return labels, np.tile(result.priors[task], (n, 1))
    p_NC = predictions.probabilities(task) if level == "tracks" else predictions.segment_probabilities(task)[0]
    if system.name != VIA_ARTIST:
        return labels, p_NC
    languages = Vocabulary.of(result.language_of.values())
    language_A = languages.encode([result.language_of.get(artist) for artist in labels])
    return list(languages.labels), language_probabilities(p_NC, language_A, len(languages))
