"""Drift: whether a night's tags differ from those of the nights before, in words that a person can act on.

A night is summed up in counts and moments (`NightSummary`). Its shares and means are compared with those of the nights
before. What a night may differ by is the error of its own sample and, where there are enough nights, what the nights
before differ by among themselves.

Legend: N nights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import bdtr, bdtrc, ndtri

from mtl_core.tables.night_columns import LABELS, NightColumns

NIGHTS = 7  # before, that a night is compared with
FALSE_WARNINGS = 0.02  # of a night with unchanged tags, over all its tests together
MIN_TRACKS = 30  # of a night: fewer tell nothing
#: Smaller changes are of no interest, however certain: of a share against the share before, or against the rest where
#: that is smaller, and of a mean in standard deviations of a track.
MIN_CHANGE, MIN_SHIFT = 0.2, 0.1
MIN_SHARE_CHANGE = 0.001
MAX_LABELS = 1000  # of a task in a summary: the most frequent ones


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of a value over tracks."""

    n: int
    mean: float
    std: float  # of one track


@dataclass(frozen=True, kw_only=True)
class NightSummary:
    """A night's tags and failures. Names are those of the columns and of the errors."""

    tagged: int = 0
    #: what is counted -> tagged tracks, e.g. "artist is null"; of the labels the most frequent `MAX_LABELS` of a task
    shares: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0  # the largest count of a label that is not in `shares`
    means: Mapping[str, Mean] = field(default_factory=dict)  # column -> its mean
    failures: Mapping[str, int] = field(default_factory=dict)  # "stage/error" -> tracks

    @property
    def planned(self) -> int:
        """The tracks that were tagged or failed."""
        return self.tagged + sum(self.failures.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NightSummary":
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for other values."""
        means = dict(values["means"])
        return cls(**{**values, "means": {name: Mean(**mean) for name, mean in means.items()}})


def night_summary(columns: NightColumns, failures: Mapping[str, int]) -> NightSummary:
    """The summary of a run from the rows that it wrote and its failures, "stage/error" -> tracks."""
    shares: dict[str, int] = {"no segment has sound": columns.n_without_sound}
    left_out = 0
    for name, labels in columns.labels.items():
        counts = {f"{name} is {'null' if label is None else label}": n for label, n in labels}
        kept = list(counts.items())[:MAX_LABELS]
        left_out = max([left_out, *(n for _, n in list(counts.items())[MAX_LABELS:])])
        shares |= dict(kept)
    means = {name: Mean(n=n, mean=mean, std=std) for name, (n, mean, std) in columns.moments.items()}
    return NightSummary(tagged=columns.n_rows, shares=shares, left_out=left_out, means=means, failures=dict(failures))


def unknown_shares(nights: Sequence[NightSummary]) -> dict[str, float]:
    """Task -> the share of tracks with an unknown label, 0 to 1, of those with sound, over all these nights together.

    A task is left out if the model does not have it, or if no track had sound.
    """
    shares = {}
    for task in LABELS:
        column = f"{task}_confidence"  # null of a track without sound
        judged = [night for night in nights if column in night.means]
        n = sum(night.means[column].n for night in judged)
        n_null = sum(night.shares.get(f"{task} is null", 0) for night in judged)
        n_without_sound = sum(night.tagged for night in judged) - n
        if n:
            shares[task] = (n_null - n_without_sound) / n
    return shares


def warnings(night: NightSummary, before: Sequence[NightSummary]) -> list[str]:
    """What changed against the nights before, the largest change first; empty: nothing, or too few tracks to tell.

    Args:
        before: nights of the same model, at most `NIGHTS`.
    """
    nights = [of for of in before if of.tagged >= MIN_TRACKS]
    tells = bool(nights) and night.tagged >= MIN_TRACKS
    names = sorted({name for of in (night, *nights) for name in of.shares}) if tells else []
    means = sorted(night.means) if tells else []
    planned = [of for of in before if of.planned >= MIN_TRACKS]
    tells_failures = bool(planned) and night.planned >= MIN_TRACKS
    errors = sorted({name for of in (night, *planned) for name in of.failures}) if tells_failures else []
    limit = -float(ndtri(FALSE_WARNINGS / 2 / max(1, len(names) + len(errors) + len(means))))
    found: list[tuple[float, str]] = []
    for name in names:
        counts = [of.shares.get(name, of.left_out) for of in (night, *nights)]
        found += _share_warning(name, "of the tracks", counts, [of.tagged for of in (night, *nights)], limit)
    for name in errors:
        counts = [of.failures.get(name, 0) for of in (night, *planned)]
        totals = [of.planned for of in (night, *planned)]
        found += _share_warning(f"failed with {name}", "of the planned tracks", counts, totals, limit)
    for name in means:
        found += _mean_warning(name, night.means[name], [of.means[name] for of in nights if name in of.means], limit)
    return [text for _, text in sorted(found, reverse=True)]


def _share_warning(
    name: str, of_what: str, counts: Sequence[int], totals: Sequence[int], limit: float
) -> list[tuple[float, str]]:
    """The first of the counts and totals are the night's."""
    (count, *counts_N), (total, *totals_N) = counts, totals
    share, share_before = count / total, sum(counts_N) / sum(totals_N)
    # Of all tracks that are counted, the night's are a binomial sample: exact also for a few tracks.
    all_counted, share_of_night = count + sum(counts_N), total / (total + sum(totals_N))
    if share > share_before:
        p = 1.0 if count == 0 else float(bdtrc(count - 1, all_counted, share_of_night))
    else:
        p = float(bdtr(count, all_counted, share_of_night))
    pooled = all_counted / (total + sum(totals_N))
    own = pooled * (1 - pooled) * (1 / total + 1 / sum(totals_N))
    between = _between(np.divide(counts_N, totals_N), [pooled * (1 - pooled) / n for n in totals_N])
    z = -float(ndtri(max(p, 1e-300))) * (own / (own + between)) ** 0.5 if own else 0.0
    change = abs(share - share_before)
    if z < limit or change < max(MIN_SHARE_CHANGE, MIN_CHANGE * min(share_before, 1 - share_before)):
        return []
    return [(z, f"{name}: {share:.1%} {of_what}, {share_before:.1%} in the {len(counts_N)} nights before")]


def _mean_warning(name: str, night: Mean, before: Sequence[Mean], limit: float) -> list[tuple[float, str]]:
    n_before = sum(of.n for of in before)
    if not n_before or not night.n:
        return []
    mean_before = sum(of.n * of.mean for of in before) / n_before
    std = (sum(of.n * of.std**2 for of in before) / n_before) ** 0.5
    variance = std**2 * (1 / night.n + 1 / n_before)
    variance += _between(np.array([of.mean for of in before]), [std**2 / of.n for of in before if of.n])
    shift = abs(night.mean - mean_before)
    if shift < MIN_SHIFT * std or not variance or shift / variance**0.5 < limit:
        return []
    text = f"{name}: {night.mean:.4g} on average, {mean_before:.4g} in the {len(before)} nights before"
    return [(shift / variance**0.5, text)]


def _between(values_N: np.ndarray, own_N: Sequence[float]) -> float:
    """The variance of nights among themselves, beyond that of their own samples; 0 of fewer than three nights."""
    if len(values_N) < 3:
        return 0.0
    return max(0.0, float(np.var(values_N, ddof=1)) - float(np.mean(own_N)))
