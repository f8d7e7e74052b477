"""Scoring: how well a system does on the pooled test parts, and how far two of them are apart, with their intervals.

The folds of a seed are pooled before they are scored; a score is the mean over the seeds. Songs are drawn once for all
systems of a task, so that differences are paired. Shares, 0 to 1. A cell is a (seed, fold).
Legend: N samples (tracks or segments), C classes, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_core.evaluation import bootstrap, metrics
from mtl_core.experiments.pooling import PRIOR, Cells, System, pool, run_keys

LEVELS = ("tracks", "segments")
SCORES = ("auc_pr_macro", "auc_roc_macro", "auc_pr_micro", "auc_roc_micro", "top_1", "top_5")
SEGMENT_SHARE = 5  # segments are many: their intervals come of a fifth of the resamples


@dataclass(frozen=True)
class Scored:
    """Of a system, a level and cells: `metrics.scores` of each seed, and headline -> (R,) resampled means over them."""

    seeds: list[dict[str, Any]]
    values_R: dict[str, np.ndarray]

    def mean(self, name: str) -> float | None:
        """A score's mean over the seeds; None where one has none."""
        values = [scores[name] for scores in self.seeds]
        return None if None in values else float(np.mean(values))


def is_scorable(cells: Cells, system: System) -> bool:
    """Whether every cell has a run that the system is computed from."""
    return bool(cells) and all(any(variant in of_cell for variant in system.variants) for of_cell in cells.values())


def summary(scored: Scored) -> dict[str, Any]:
    """A system's scores at one level."""
    first = scored.seeds[0]
    values = {name: scored.mean(name) for name in SCORES}
    ci = {name: bootstrap.confidence_interval(values_R, values[name]) for name, values_R in scored.values_R.items()}
    return {
        **values,
        "ci": {name: None if ends is None else [max(0.0, ends[0]), min(1.0, ends[1])] for name, ends in ci.items()},
        "by_seed": {name: [scores[name] for scores in scored.seeds] for name in SCORES},
        "n": [scores["n"] for scores in scored.seeds],
        "classes": first["classes"],
        "classes_covered": [scores["classes_covered"] for scores in scored.seeds],
        "chance": first["chance"],
    }


def difference(a: Scored, b: Scored) -> dict[str, Any]:
    """headline -> a minus b and its 95% interval."""
    found = {}
    for name, values_R in a.values_R.items():
        ends = a.mean(name), b.mean(name)
        apart = None if ends[0] is None or ends[1] is None else ends[0] - ends[1]
        found[name] = {"difference": apart, "ci": bootstrap.confidence_interval(values_R - b.values_R[name], apart)}
    return found


class Scorer:
    """Scores of systems, each computed once; the draws of songs depend on the songs alone.

    Args:
        resamples: of the bootstrap over songs, 0 for no intervals; segments take a fifth of them.
        seed: of the bootstrap.
        songs: track_id -> its song, where several tracks are versions of one; by default each is a song.
    """

    def __init__(self, resamples: int, seed: int, songs: Mapping[str, str] | None = None) -> None:
        self._resamples, self._seed, self._songs = resamples, seed, songs
        self._known: dict[tuple[Any, ...], Scored] = {}

    def scored(self, cells: Cells, system: System, level: str) -> Scored:
        """How a system does in the cells at one of `LEVELS`."""
        key = (tuple(run_keys(cells, system)), system, level)
        if key not in self._known:
            self._known[key] = self._score(cells, system, level)
        return self._known[key]

    def _score(self, cells: Cells, system: System, level: str) -> Scored:
        pooled = pool(cells, system, level, self._songs)
        songs = np.concatenate([samples.songs_N for samples in pooled])
        resamples = self._resamples if level == "tracks" else self._resamples // SEGMENT_SHARE
        resamples = 0 if system.name == PRIOR else resamples  # it says the same of every song
        drawn = bootstrap.draw_songs(songs, resamples=resamples, seed=self._seed)
        by_seed = [bootstrap.score_resamples(s.p_NC, s.t_N, s.songs_N, drawn) for s in pooled]
        return Scored(
            seeds=[metrics.scores(s.p_NC, s.t_N, s.songs_N, resamples=0) for s in pooled],
            values_R={name: np.mean([values[name] for values in by_seed], 0) for name in bootstrap.HEADLINES},
        )
