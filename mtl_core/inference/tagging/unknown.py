"""Unknown: the score of a track by which unknown artists are told, and the threshold below which its label is null.

A catalogue holds far more artists than a model knows. The tracks that a threshold is chosen on are those of known and
of unknown artists, scored by models that did not train on them.

Legend: N tracks, C classes, G groups (artists), K thresholds, R resamples.
"""

import numpy as np

from mtl_core.inference.tagging.softmax import softmax_terms

#: Scores, the higher the more certainly known: of the most probable class its probability and its logit; the energy,
#: log sum exp of the logits, of Liu et al. 2020, "Energy-based Out-of-distribution Detection"; and the cosine, which is
#: the logit by the length of the embedding. The logits are divided by the temperature first.
PROBABILITY = "probability"
SCORES = (PROBABILITY, "logit", "energy", "cosine")
NOTHING_IS_NAMED = 1e30  # a threshold that no track reaches
RESAMPLES = 1000
CONFIDENCE = 0.95  # one-sided, of the bound on the precision
PRIOR_TRACKS = 0.5  # that count as wrong beside those that are: Jeffreys' prior of a share
MAX_THRESHOLDS = 500  # that are tried: quantiles of the scores


def unknown_scores(
    name: str, logits_NC: np.ndarray, temperature: float, length_N: np.ndarray, shortest: float
) -> np.ndarray:
    """(N,) float64: the score of this name, one of `SCORES`.

    Args:
        logits_NC: of N tracks.
        temperature: divisor of the logits.
        length_N: of what the head uses of their embeddings (`Head.lengths`), for the cosine.
        shortest: a smaller length counts as this one, above 0: the embedding of strange input is near 0, and has no
            direction.
    """
    _, sum_N1 = softmax_terms(logits_NC, temperature)
    largest_N = logits_NC.max(1).astype(np.float64) / temperature
    return unknown_score(name, largest_N, sum_N1[:, 0], length_N, shortest)


def unknown_score(
    name: str, largest_N: np.ndarray, sum_N: np.ndarray, length_N: np.ndarray, shortest: float
) -> np.ndarray:
    """(N,) float64: the score of this name, from parts that a caller has already.

    Args:
        largest_N: the largest logits, divided by the temperature.
        sum_N: the sums of the probabilities as multiples of the largest, see `softmax.softmax_terms`.
        length_N, shortest: as of `unknown_scores`.
    """
    if name == PROBABILITY:
        return 1 / sum_N
    if name == "cosine":
        return largest_N / np.maximum(length_N, shortest)
    return largest_N + np.log(sum_N) if name == "energy" else largest_N


def choose_threshold(
    scores_N: np.ndarray,
    right_N: np.ndarray,
    known_N: np.ndarray,
    groups_N: np.ndarray,
    *,
    precision: float,
    unknown_share: float,
    seed: int = 0,
) -> float:
    """The threshold that names the most tracks, while the names are right often enough.

    The share of right names among all names, its precision, must be `precision` or more. It counts by a lower bound
    from a bootstrap over groups. Half a track more counts as named and wrong: a few that are all right prove little.

    Args:
        scores_N: higher is more certainly of a known class.
        right_N: whether the most probable label is the true one.
        known_N: whether the track's artist is known.
        groups_N: the artist of each track, the unit of the bootstrap.
        precision: 0 to 1.
        unknown_share: share of tracks of unknown artists in the catalogue, 0 to 1. The tracks are weighted to it.
        seed: of the bootstrap.

    Returns:
        The threshold; `NOTHING_IS_NAMED` where none reaches the precision, or where there is no known or no unknown
        track.
    """
    weight_N = track_weights(known_N, unknown_share)
    if not known_N.any() or known_N.all():
        return NOTHING_IS_NAMED
    thresholds_K = np.unique(np.quantile(scores_N, np.linspace(0, 1, MAX_THRESHOLDS), method="inverted_cdf"))
    sums = np.stack((weight_N, weight_N * right_N, np.ones(len(weight_N))))
    named_GK, right_GK, count_GK = _sums_above(scores_N, sums, groups_N, thresholds_K)
    n_groups = len(named_GK)
    rng = np.random.default_rng(seed)
    counts_RG = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=RESAMPLES)
    wrong_K = PRIOR_TRACKS * named_GK.sum(0) / count_GK.sum(0)  # of the mean weight
    precision_RK = (counts_RG @ right_GK) / (counts_RG @ named_GK + wrong_K)
    reached_K = np.quantile(precision_RK, 1 - CONFIDENCE, axis=0) >= precision
    return float(thresholds_K[reached_K.argmax()]) if reached_K.any() else NOTHING_IS_NAMED


def precision_and_coverage(
    scores_N: np.ndarray, right_N: np.ndarray, known_N: np.ndarray, thresholds_K: np.ndarray, *, unknown_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the share of right names among all names (nan without any), and (K,) that of known tracks with a name."""
    weight_N = track_weights(known_N, unknown_share)
    named_NK = scores_N[:, None] >= thresholds_K
    named_K = weight_N @ named_NK
    with np.errstate(invalid="ignore"):
        return (weight_N * right_N) @ named_NK / named_K, named_NK[known_N].mean(0)


def track_weights(known_N: np.ndarray, unknown_share: float) -> np.ndarray:
    """(N,) weights of tracks that sum to 1, so that those of unknown artists have the stated share."""
    n_known = max(1, int(known_N.sum()))
    return np.where(known_N, (1 - unknown_share) / n_known, unknown_share / max(1, len(known_N) - n_known))


def _sums_above(
    scores_N: np.ndarray, weights_WN: np.ndarray, groups_N: np.ndarray, thresholds_K: np.ndarray
) -> np.ndarray:
    """(W, G, K) the sums of weights over the tracks of each group whose score is a threshold or more."""
    _, group_N = np.unique(groups_N, return_inverse=True)
    step_N = np.searchsorted(thresholds_K, scores_N, side="right") - 1  # the highest threshold that a track reaches
    sums = np.zeros((len(weights_WN), group_N.max() + 1, len(thresholds_K)))
    for sums_GK, weight_N in zip(sums, weights_WN, strict=True):
        np.add.at(sums_GK, (group_N[step_N >= 0], step_N[step_N >= 0]), weight_N[step_N >= 0])
    return sums[..., ::-1].cumsum(-1)[..., ::-1]
