"""Pooling: what the systems of a comparison say of the test parts of many runs, the folds of a seed together.

A cell is a (seed, fold); in it every model was trained and tested on the same songs.
Legend: N samples (tracks or segments), C classes, A artists.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtl_core.dataset.vocabulary import MISSING, TASKS, Vocabulary
from mtl_core.evaluation import baselines
from mtl_core.experiments.run_store import BOTH, RunResult

MULTI, PRIOR, VIA_ARTIST = "multi-task", "class prior", "via artist-only"

#: (seed, fold) -> variant -> its run
Cells = Mapping[tuple[int, int], Mapping[str, RunResult]]


@dataclass(frozen=True)
class System:
    """What says something of a task: a row of the table.

    Args:
        task: of `TASKS`.
        name: for people.
        variants: whose runs it is computed from, of `results.VARIANTS`: the first that is stored.
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


@dataclass(frozen=True)
class Samples:
    """What a system says of the pooled test parts of one seed: probabilities (N, C), targets (N,), songs (N,)."""

    p_NC: np.ndarray
    t_N: np.ndarray
    songs_N: np.ndarray


def complete_cells(cells: Cells) -> dict[tuple[int, int], Mapping[str, RunResult]]:
    """The cells to score: those that have every model that any has, of the seeds with the most such folds."""
    variants = {variant for of_cell in cells.values() for variant in of_cell}
    full = {cell: of_cell for cell, of_cell in sorted(cells.items()) if set(of_cell) == variants}
    folds_of = defaultdict(set)
    for seed, fold in full:
        folds_of[seed].add(fold)
    most = max(folds_of.values(), key=len, default=set())
    return {cell: of_cell for cell, of_cell in full.items() if folds_of[cell[0]] == most}


def run_keys(cells: Cells, system: System) -> list[str]:
    """Keys of the runs that a system is computed from."""
    return [next(of[v] for v in system.variants if v in of).run.key for of in cells.values()]


def pool(cells: Cells, system: System, level: str, songs: Mapping[str, str] | None = None) -> list[Samples]:
    """What a system says of the test parts, the folds of a seed together: one `Samples` for each seed, in order.

    Args:
        cells: as `whole` gives them.
        system: who says it.
        level: "tracks" or "segments".
        songs: track_id -> its song, where several tracks are versions of one; by default each is a song.

    Raises:
        ValueError: folds of one seed test a song twice.
    """
    labels = sorted({label for of_cell in cells.values() for label in _labels(of_cell, system.task)})
    place = Vocabulary(tuple(labels))
    of_seed: dict[int, list[Samples]] = defaultdict(list)
    for (seed, _), of_cell in sorted(cells.items()):
        own = _labels(of_cell, system.task)
        result = next(of_cell[variant] for variant in system.variants if variant in of_cell)
        p_NC = np.zeros((_size(result, level), len(labels)))
        said_labels, said_NC = _said(result, system, level)
        p_NC[:, place.encode(said_labels)] = said_NC
        tracks, repeats = result.heard.tracks, 1 if level == "tracks" else result.heard.n_segments
        truth = [label if label in own else None for label in tracks[system.task].to_pylist()]
        t_N = np.repeat(place.encode(truth), repeats)
        names = [(songs or {}).get(track_id, track_id) for track_id in tracks["track_id"].to_pylist()]
        songs_N = np.repeat(np.array(names), repeats)
        known = t_N != MISSING
        of_seed[seed].append(Samples(p_NC[known], t_N[known], songs_N[known]))
    pooled = []
    for parts in of_seed.values():
        if len(np.unique(np.concatenate([np.unique(s.songs_N) for s in parts]))) < sum(
            len(np.unique(s.songs_N)) for s in parts
        ):
            raise ValueError("folds of one seed test a song twice")
        joined = (np.concatenate([getattr(s, name) for s in parts]) for name in ("p_NC", "t_N", "songs_N"))
        pooled.append(Samples(*joined))
    return pooled


def _labels(of_cell: Mapping[str, RunResult], task: str) -> set[str]:
    """The classes of a task in a cell's training part."""
    for result in of_cell.values():
        if task in result.heard.vocabularies:
            return set(result.heard.vocabularies[task].labels)
    return {label for result in of_cell.values() for label in result.language_of.values()}


def _size(result: RunResult, level: str) -> int:
    return len(result.heard.tracks) if level == "tracks" else sum(result.heard.n_segments)


def _said(result: RunResult, system: System, level: str) -> tuple[list[str], np.ndarray]:
    """Labels and the probabilities (N, C) of them."""
    heard, task = result.heard, "artist" if system.name == VIA_ARTIST else system.task
    labels = list(heard.vocabularies[task].labels)
    if system.name == PRIOR:
        return labels, np.tile(result.priors[task], (_size(result, level), 1))
    if level == "tracks":
        p_NC = heard.probabilities(task)
    else:
        p_NC, _ = heard.segment_probabilities(task)
    if system.name != VIA_ARTIST:
        return labels, p_NC
    languages = Vocabulary.of(result.language_of.values())
    language_A = languages.encode([result.language_of.get(artist) for artist in labels])
    return list(languages.labels), baselines.language_probabilities(p_NC, language_A, len(languages))
