"""Bootstrap: 95% intervals of scores, from songs drawn with replacement.

A song is drawn together with all its samples: its track, or all its segments. Models that are scored on the same draws
can be compared in pairs: the difference of their resampled scores has an interval of its own.

Legend: N samples (tracks or segments), C classes, G songs, R resamples.
Source: Efron and Tibshirani 1993, chapters 8 (units) and 13 (percentile intervals).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mtl_core.evaluation.ranking import ap_and_auroc_per_class, nan_class_mean, top_k_hits

RESAMPLES = 1000
REDUCED = 5  # intervals that cost more, or of which there are many, get a fifth of the resamples
HEADLINES = ("auc_pr_macro", "auc_roc_macro", "top_1", "top_5")  # the scores that have intervals
_CHUNK_VALUES = 4_000_000  # weights in memory at once


def draw_songs(songs_N: Sequence[str] | np.ndarray, *, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many songs as there are, with replacement.

    Args:
        songs_N: (N,) the song of each sample.
        resamples: R, 0 or more.
        seed: seed of the draws.

    Returns:
        The names of the songs (G,), sorted, and how often each resample contains each song (R, G).
    """
    names_G = np.unique(np.asarray(songs_N))
    if resamples < 1 or not len(names_G):
        return names_G, np.empty((0, len(names_G)), np.int64)
    rng = np.random.default_rng(seed)
    return names_G, rng.multinomial(len(names_G), np.full(len(names_G), 1 / len(names_G)), size=resamples)


def score_resamples(
    p_NC: np.ndarray, t_N: np.ndarray, songs_N: np.ndarray, draws: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Score one model on every resample.

    Args:
        p_NC: (N, C) probabilities.
        t_N: (N,) class indices, none of them `MISSING`.
        songs_N: (N,) the song of each sample, among those that were drawn from.
        draws: result of `draw_songs`.

    Returns:
        headline -> (R,) scores. Macro scores are means over the classes in the resample; nan where it has none.
    """
    names_G, counts_RG = draws
    if not len(counts_RG) or not len(t_N):
        return {name: np.empty(0) for name in HEADLINES}
    song_N, resamples = np.searchsorted(names_G, songs_N), len(counts_RG)
    hits_KN = top_k_hits(p_NC, t_N)
    chunks = []
    for chunk_RG in np.array_split(counts_RG, max(1, min(resamples, -(-resamples * len(t_N) // _CHUNK_VALUES)))):
        w_RN = chunk_RG[:, song_N].astype(np.float64)
        area_means = [nan_class_mean(areas_CR) for areas_CR in ap_and_auroc_per_class(p_NC, t_N, w_RN)]
        with np.errstate(invalid="ignore"):  # 0 / 0 where a resample has none of these songs
            chunks.append(np.stack([*area_means, *(hits_KN @ w_RN.T / w_RN.sum(1))]))
    return dict(zip(HEADLINES, np.concatenate(chunks, 1), strict=True))


def confidence_interval(values_R: np.ndarray, value: float | None) -> list[float] | None:
    """The middle 95% of resampled values, [low, high], shifted so that their mean is `value`; None without values.

    The shift is necessary because a resample contains each song of a class several times or not at all. A song that is
    drawn twice is easier to rank first, so resampled AUC-PR is too high. With one or two songs a class the whole
    unshifted interval is often above the value. (In a simulation with 34 or 68 songs and 17 or 34 classes, unshifted
    intervals contained the true value in 53% to 88% of runs, shifted ones in 81% to 93%.) If every resample has the
    same score, the interval has no width, even with few songs.
    """
    finite = values_R[np.isfinite(values_R)]
    if value is None or not len(finite):
        return None
    return [float(x) for x in np.percentile(finite, (2.5, 97.5)) - finite.mean() + value]


def share_intervals(
    resampled: Mapping[str, np.ndarray], scores: Mapping[str, float | None]
) -> dict[str, list[float] | None]:
    """headline -> `confidence_interval` of a score that is a share, cut off at 0 and 1."""
    intervals = {name: confidence_interval(values_R, scores[name]) for name, values_R in resampled.items()}
    return {name: None if ci is None else [max(0.0, ci[0]), min(1.0, ci[1])] for name, ci in intervals.items()}
