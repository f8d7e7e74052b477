"""Early exit: when the first segments of a track tell its tag, so that the others need not be decoded.

A task is decided where its score lies far enough from the threshold and, for a name, its most probable label far enough
before the second. Far enough is so many standard deviations of what later segments change, the same number in every
round and task; of a probability, in its log odds. It is the smallest with which the tags of out-of-fold tracks are
those of all their segments often enough.

Legend: N tracks, G groups (artists), R resamples.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtl_core.inference.tagging.aggregation import Stop
from mtl_core.inference.tagging.unknown import CONFIDENCE, PRIOR_TRACKS, RESAMPLES, track_weights

AGREEMENT = 0.99  # of the tags with those of all segments, as a lower bound
NEVER = 1e30  # a score that no track has
LEAST_PROBABILITY = 1e-9  # smaller ones, and those nearer to 1, count as this
DEVIATIONS = np.geomspace(0.25, 16, 49)


@dataclass(frozen=True, kw_only=True)
class ExitOptions:
    """How many segments of a track are decoded.

    Raises:
        ValueError: a value is not allowed.
    """

    exit: Literal["rule", "never"] = "rule"
    """rule: a track is decoded in rounds of 4, 8, 16, 32 … segments, until the model's rule says that no more would
    change its tags; never: all segments that the model's front end names."""
    segments: int | None = None
    """A fixed number of segments instead, all over the recording, 1 or more."""

    def __post_init__(self) -> None:
        if self.exit not in ("rule", "never"):
            raise ValueError(f"exit must be rule or never, got {self.exit!r}")
        if self.segments is not None and self.segments < 1:
            raise ValueError(f"segments must be 1 or more, got {self.segments}")

    @property
    def uses_rule(self) -> bool:
        return self.exit == "rule" and self.segments is None


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """What the segments of N tracks say in one task."""

    label_N: np.ndarray  # the most probable class
    odds_N: np.ndarray  # the logarithm of its odds against the second
    score_N: np.ndarray  # by which unknown classes are told
    final_odds_N: np.ndarray  # the same odds, of `label_N` against the best other class, with all segments


@dataclass(frozen=True, kw_only=True)
class RoundScores:
    """What the first segments of tracks say."""

    segments: int
    reached_N: np.ndarray  # whether the track has more segments, and sound in these
    tasks: Mapping[str, TaskScores]


def choose_stops(
    rounds: Sequence[RoundScores],
    final: Mapping[str, TaskScores],
    threshold: Mapping[str, float | None],
    *,
    known_N: np.ndarray,
    groups_N: np.ndarray,
    unknown_share: float,
    seed: int,
    probabilities: Collection[str] = (),
    agreement: float = AGREEMENT,
) -> dict[int, dict[str, Stop]]:
    """The number of segments of a round -> task -> when it is decided there. Empty where no rule agrees often enough.

    Args:
        rounds: in rising order, without that of all segments.
        final: task -> what all segments say.
        threshold: task -> the score below which a label is null; None: never.
        known_N, groups_N, unknown_share: of the tracks, as of `unknown.choose_threshold`.
        seed: of the bootstrap over groups.
        probabilities: tasks whose scores are probabilities. How far off they are is measured in their log odds: near 1
            they hardly change, and a label would never be far enough above the threshold to be kept.
        agreement: share of the tracks whose tags in all tasks shall be those of all segments.
    """
    spread = {
        of.segments: {task: _Spread.of(of, final[task], task, task in probabilities) for task in final} for of in rounds
    }
    weight_N = track_weights(known_N, unknown_share)
    _, group_N = np.unique(groups_N, return_inverse=True)
    n_groups = group_N.max(initial=-1) + 1
    counts_RG = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=RESAMPLES)
    weight_G = np.bincount(group_N, weight_N)
    wrong = PRIOR_TRACKS * weight_N.sum() / max(1, len(weight_N))
    for deviations in DEVIATIONS:
        stops = {
            of.segments: {task: spread[of.segments][task].stop(deviations, threshold[task]) for task in final}
            for of in rounds
        }
        agrees_N, _ = follow(rounds, final, threshold, stops)
        agrees_G = np.bincount(group_N, weight_N * agrees_N)
        share_R = (counts_RG @ agrees_G) / (counts_RG @ weight_G + wrong)
        if np.quantile(share_R, 1 - CONFIDENCE) >= agreement:
            return stops
    return {}


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """What later segments change in one task."""

    score_shift: float
    score_std: float
    odds_std: float
    is_probability: bool

    @classmethod
    def of(cls, early: RoundScores, final: TaskScores, task: str, is_probability: bool) -> "_Spread":
        scores, reached_N = early.tasks[task], early.reached_N
        on_scale = _log_odds if is_probability else np.asarray
        change_N = (on_scale(final.score_N) - on_scale(scores.score_N))[reached_N]
        odds_change_N = (scores.final_odds_N - scores.odds_N)[reached_N]
        shift = float(np.median(change_N))
        return cls(
            score_shift=shift,
            score_std=float(np.sqrt(np.mean((change_N - shift) ** 2))),
            odds_std=float(np.sqrt(np.mean(odds_change_N**2))),
            is_probability=is_probability,
        )

    def stop(self, deviations: float, threshold: float | None) -> Stop:
        odds_from = float(np.exp(min(deviations * self.odds_std, 50.0)))
        if threshold is None:
            return Stop(odds_from=odds_from, named_from=-NEVER, null_below=-NEVER)
        in_log_odds = self.is_probability and threshold < 1
        limit = float(_log_odds(np.array(threshold))) if in_log_odds else threshold
        expected, margin = limit - self.score_shift, deviations * self.score_std
        named_from, null_below = expected + margin, expected - margin
        if in_log_odds:
            named_from, null_below = _probability(named_from), _probability(null_below)
        return Stop(odds_from=odds_from, named_from=named_from, null_below=null_below)


def _log_odds(probability_N: np.ndarray) -> np.ndarray:
    clipped_N = np.clip(probability_N, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.log(clipped_N / (1 - clipped_N))


def _probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def follow(
    rounds: Sequence[RoundScores],
    final: Mapping[str, TaskScores],
    threshold: Mapping[str, float | None],
    stops: Mapping[int, Mapping[str, Stop]],
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether the tags of a track, where it stops, are those of all its segments; and the round (N,) it stops in.

    The round is the number of its segments, 0 where a track does not stop. Arguments as of `choose_stops`.
    """
    n = len(next(iter(final.values())).label_N)
    running_N, agrees_N, round_N = np.ones(n, bool), np.ones(n, bool), np.zeros(n, np.int64)
    for of in rounds:
        stops_N, same_N = of.reached_N & running_N, np.ones(n, bool)
        for task, last in final.items():
            scores, stop = of.tasks[task], stops[of.segments][task]
            null_N = scores.score_N < stop.null_below
            named_N = (scores.score_N >= stop.named_from) & (scores.odds_N >= np.log(stop.odds_from))
            stops_N &= null_N | named_N
            limit = threshold[task]
            final_null_N = np.zeros(n, bool) if limit is None else last.score_N < limit
            same_N &= np.where(null_N, final_null_N, ~final_null_N & (scores.label_N == last.label_N))
        agrees_N[stops_N], round_N[stops_N] = same_N[stops_N], of.segments
        running_N &= ~stops_N
    return agrees_N, round_N
