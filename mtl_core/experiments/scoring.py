"""Scoring: the scores of a system on pooled test tracks, and the difference of two systems, with 95% intervals.

The folds of a seed are pooled before they are scored. A score is the mean over the seeds. The songs are drawn once for
all systems of a task, so differences are paired. Scores are shares, 0 to 1.

Legend: N samples (tracks or segments), C classes, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_core.evaluation import bootstrap, metrics
from mtl_core.evaluation.baselines import CHANCE_KEYS
from mtl_core.evaluation.bootstrap import HEADLINES, REDUCED
from mtl_core.experiments.pooling import PRIOR, Cells, System, pool, run_keys

SCORED_LEVELS = ("tracks", "segments")
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Scored:
    """The scores of a system at one level."""

    by_seed: list[dict[str, Any]]  # `metrics.scores` of each seed
    resampled: dict[str, np.ndarray]  # headline -> (R,) resampled means over the seeds

    def mean(self, name: str) -> float | None:
        """The mean of a score over the seeds; None if a seed has none."""
        values = [scores[name] for scores in self.by_seed]
        return None if None in values else float(np.mean(values))


def is_scorable(cells: Cells, system: System) -> bool:
    """Whether every cell has a run that the system can be computed from."""
    return bool(cells) and all(any(variant in cell for variant in system.variants) for cell in cells.values())


def summary(scored: Scored) -> dict[str, Any]:
    """The scores of a system at one level, as JSON values."""
    values = {name: scored.mean(name) for name in CHANCE_KEYS}
    return {
        **values,
        "ci": bootstrap.share_intervals(scored.resampled, values),
        "by_seed": {name: [scores[name] for scores in scored.by_seed] for name in CHANCE_KEYS},
        "n": [scores["n"] for scores in scored.by_seed],
        "classes": scored.by_seed[0]["classes"],
        "classes_covered": [scores["classes_covered"] for scores in scored.by_seed],
        "chance": scored.by_seed[0]["chance"],
    }


def difference(a: Scored, b: Scored) -> dict[str, Any]:
    """headline -> a minus b and its 95% interval, as JSON values."""
    differences = {}
    for name, a_R in a.resampled.items():
        a_mean, b_mean = a.mean(name), b.mean(name)
        value = None if a_mean is None or b_mean is None else a_mean - b_mean
        differences[name] = {"difference": value, "ci": bootstrap.confidence_interval(a_R - b.resampled[name], value)}
    return differences


class Scorer:
    """Scores systems, each only once. The draws depend only on the songs, so all systems of a task share them.

    Args:
        resamples: of the bootstrap over songs, 0 for no intervals. Segments get a fifth of them.
        songs: track_id -> song, if several tracks are versions of one song; by default each track is a song.
    """

    def __init__(self, resamples: int = bootstrap.RESAMPLES, songs: Mapping[str, str] | None = None) -> None:
        self.resamples, self._songs = resamples, songs
        self._cache: dict[tuple[Any, ...], Scored] = {}

    def scored(self, cells: Cells, system: System, level: str) -> Scored:
        """The scores of a scorable system in cells of `complete_cells`, at one of `SCORED_LEVELS`."""
        key = (tuple(run_keys(cells, system)), system, level)
        if key not in self._cache:
            self._cache[key] = self._score(cells, system, level)
        return self._cache[key]

    def _score(self, cells: Cells, system: System, level: str) -> Scored:
        pooled = pool(cells, system, level, self._songs)
        resamples = self.resamples if level == "tracks" else self.resamples // REDUCED
        if system.name == PRIOR:  # the same prediction for every song
            resamples = 0
        songs_N = np.concatenate([samples.songs_N for samples in pooled])
        draws = bootstrap.draw_songs(songs_N, resamples=resamples, seed=BOOTSTRAP_SEED)
        resampled = [bootstrap.score_resamples(samples.p_NC, samples.t_N, samples.songs_N, draws) for samples in pooled]
        return Scored(
            by_seed=[metrics.scores(samples.p_NC, samples.t_N, samples.songs_N, resamples=0) for samples in pooled],
            resampled={name: np.mean([values[name] for values in resampled], 0) for name in HEADLINES},
        )
