"""Ranking: areas under the precision-recall and ROC curves, the curves themselves, and top-k hits.

Classes are scored one against the rest. Targets (N,) are class indices. The areas of a class need only the ranks of its
positives among its negatives (`Ranks`). They are counted by blocks of classes, so the areas are exact at any size.
`ap_and_auroc` weights all samples, with many weightings at once: each resample of the bootstrap is one weighting.

Legend: N samples, all with a target, C classes, D covered classes (those with a positive), R weightings, K distinct
values.
"""

from dataclasses import dataclass

import numpy as np

from mtl_core.evaluation.class_scores import ClassScores, class_blocks, row_blocks

CURVE_POINTS = 80  # of a curve, about; >= 4
_FEW = 32  # values up to which comparing each is faster than a binary search


@dataclass(frozen=True)
class Ranks:
    """The ranks of all samples. Samples are in the order of their class, and within it best first."""

    covered_D: np.ndarray  # the classes with a positive, rising
    sample_N: np.ndarray  # position of each sample
    start_D: np.ndarray  # position in `sample_N` of the first sample of each covered class
    last_N: np.ndarray  # position in `sample_N` of the last sample of the class with the same score
    not_below_N: np.ndarray  # negatives of the class with a score as high or higher
    above_N: np.ndarray  # negatives of the class with a higher score
    #: (N,) by position of the sample: the derivative of the macro AP and of the macro AUROC by the sample's weight, as
    #: a negative of all the other classes.
    ap_slope_N: np.ndarray
    auroc_slope_N: np.ndarray

    def areas(self, w_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average precision and area under the ROC curve, (R, D) each; nan where not defined.

        Args:
            w_RN: (R, N) weights of the samples as positives, >= 0. As negatives all samples have the weight 1.
        """
        n = len(self.sample_N)
        if not n:
            return (np.empty((len(w_RN), 0)),) * 2
        w_RN = w_RN[:, self.sample_N]
        total_RN = np.cumsum(w_RN, 1)
        size_D = np.diff(np.append(self.start_D, n))
        before_RD = np.take(np.pad(total_RN, ((0, 0), (1, 0))), self.start_D, axis=1)
        tp_RN = total_RN[:, self.last_N] - np.repeat(before_RD, size_D, axis=1)
        negatives_N = np.repeat(n - size_D, size_D)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision_RN = np.where(w_RN > 0, tp_RN / (tp_RN + self.not_below_N), 0)
            beaten_N = 1 - (self.not_below_N + self.above_N) / (2 * negatives_N)
            weight_RD = np.add.reduceat(w_RN, self.start_D, axis=1)
            ap_RD = np.add.reduceat(w_RN * precision_RN, self.start_D, axis=1) / weight_RD
            auroc_RD = np.add.reduceat(w_RN * beaten_N, self.start_D, axis=1) / weight_RD
        return ap_RD, auroc_RD


def rank(scores: ClassScores, targets_N: np.ndarray) -> Ranks:
    """Rank samples as positives of their classes (N,), by blocks of classes."""
    n = len(targets_N)
    own_N, not_below_N, above_N = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    slopes_2N = np.zeros((2, n))
    covered_D, start_D, size_D = np.unique(np.sort(targets_N), return_index=True, return_counts=True)
    by_class = np.split(np.argsort(targets_N, kind="stable"), start_D[1:])
    samples = dict(zip(covered_D.tolist(), by_class, strict=False))  # without samples one is left, which is empty
    for block in class_blocks(covered_D, n):
        for c, value_N in zip(block.tolist(), scores.of_classes(block), strict=True):
            own_N[samples[c]] = value_N[samples[c]]
            not_below_N[samples[c]], above_N[samples[c]] = _rank_class(value_N, samples[c], slopes_2N)
    sample_N = np.lexsort((-own_N, targets_N))
    is_last = np.append((np.diff(own_N[sample_N]) != 0) | (np.diff(targets_N[sample_N]) != 0), True)[:n]
    last_N = np.repeat(np.flatnonzero(is_last), np.diff(np.flatnonzero(is_last), prepend=-1))
    ap_slope_N, auroc_slope_N = slopes_2N / np.array([[max(len(size_D), 1)], [max((size_D < n).sum(), 1)]])
    return Ranks(
        covered_D, sample_N, start_D, last_N, not_below_N[sample_N], above_N[sample_N], ap_slope_N, auroc_slope_N
    )


def _rank_class(value_N: np.ndarray, positives: np.ndarray, slopes_2N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of negatives that are not below and above each positive. Adds the slopes of the negatives.

    A class has AP = sum over its positives of tp / (tp + fp) / P, so the derivative by the weight of a negative is the
    sum of -tp / (tp + fp)^2 / P over the positives that are not above it. AUROC is a mean over the negatives.
    """
    value_K, group_P, size_K = np.unique(value_N[positives], return_inverse=True, return_counts=True)
    reached_N, not_below_K, above_K = _count(value_N, value_K)
    tp_K = size_K[::-1].cumsum()[::-1]
    not_below_K, above_K = not_below_K - tp_K, above_K - (tp_K - size_K)
    n, n_positives = len(value_N), len(positives)
    n_negatives = n - n_positives
    if n_negatives:
        kept_2P = slopes_2N[:, positives]
        ap_slope_K = -size_K * tp_K / (tp_K + not_below_K).astype(np.float64) ** 2 / n_positives
        slopes_2N[0] += np.append(0, ap_slope_K.cumsum())[reached_N]
        auroc = 1 - (size_K * (not_below_K + above_K)).sum() / (2 * n_positives * n_negatives)
        lost_N = np.append(0, size_K.cumsum() / n_positives)[reached_N]
        tied = np.flatnonzero(np.append(np.nan, value_K)[reached_N] == value_N)
        lost_N[tied] -= size_K[reached_N[tied].astype(np.int64) - 1] / (2 * n_positives)
        slopes_2N[1] += (1 - lost_N - auroc) / n_negatives
        slopes_2N[:, positives] = kept_2P
    return not_below_K[group_P], above_K[group_P]


def _count(value_N: np.ndarray, value_K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) how many of the rising values (K,) each sample reaches; (K,) the samples that reach and that exceed each."""
    if len(value_K) > _FEW:
        ordered_N = np.sort(value_N)
        reach_K, exceed_K = (len(value_N) - np.searchsorted(ordered_N, value_K, side) for side in ("left", "right"))
        return np.searchsorted(value_K, value_N, "right"), reach_K, exceed_K
    reached_N = np.zeros(len(value_N), np.uint8)
    counts = np.zeros((2, len(value_K)), np.int64)
    for k, value in enumerate(value_K):
        reaches_N = value_N >= value
        reached_N += reaches_N
        counts[:, k] = np.count_nonzero(reaches_N), np.count_nonzero(value_N > value)
    return reached_N, counts[0], counts[1]


def micro_areas(scores: ClassScores, targets_N: np.ndarray) -> tuple[float, float]:
    """AP and AUROC of all N x D values of the covered classes taken together; nan where not defined.

    Each block is sorted, and the N values of the positives are looked up in it.
    """
    n, covered_D = len(targets_N), np.unique(targets_N)
    own_N = np.zeros(n)
    for block in class_blocks(covered_D, n):
        index = np.searchsorted(block, targets_N)
        mine = np.flatnonzero((targets_N >= block[0]) & (targets_N <= block[-1]))
        own_N[mine] = scores.of_classes(block)[index[mine], mine]
    value_K, size_K = np.unique(own_N, return_counts=True)
    not_below_K, above_K = np.zeros(len(value_K), np.int64), np.zeros(len(value_K), np.int64)
    for block in class_blocks(covered_D, n):
        ordered = np.sort(scores.of_classes(block), axis=None)
        typed_K = value_K.astype(ordered.dtype)  # other types would be converted in every call
        not_below_K += len(ordered) - np.searchsorted(ordered, typed_K, "left")
        above_K += len(ordered) - np.searchsorted(ordered, typed_K, "right")
    tp_K = size_K[::-1].cumsum()[::-1]
    negatives = n * len(covered_D) - n
    with np.errstate(invalid="ignore", divide="ignore"):
        ap = (size_K * tp_K / not_below_K).sum() / np.float64(n)
        beaten_K = 1 - (not_below_K - tp_K + above_K - (tp_K - size_K)) / (2 * np.float64(negatives))
        return float(ap), float((size_K * beaten_K).sum() / np.float64(n))


@dataclass(frozen=True)
class Predicted:
    """What each sample's row of probabilities says."""

    confidence_N: np.ndarray  # the largest probability
    true_probability_N: np.ndarray  # the probability of the target
    rank_N: np.ndarray  # classes that rank before the target


def predicted(scores: ClassScores, targets_N: np.ndarray) -> Predicted:
    """Read the probabilities by blocks of rows."""
    parts = [(np.empty(0), np.empty(0), np.empty(0, np.int64))]
    for first, end in row_blocks(*scores.shape):
        p_NC, t_N = scores.rows(first, end), targets_N[first:end]
        parts.append((p_NC.max(1), p_NC[np.arange(len(t_N)), t_N], target_ranks(p_NC, t_N)))
    return Predicted(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def ap_and_auroc_per_class(
    p_NC: np.ndarray, targets_N: np.ndarray, weights_RN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC-PR and AUC-ROC, (C, R) each, of every class against the rest.

    Args:
        p_NC: (N, C) probabilities.
        targets_N: (N,) class indices.
        weights_RN: (R, N) weights of the samples, >= 0.
    """
    areas = [ap_and_auroc(p_NC[:, c], targets_N == c, weights_RN) for c in range(p_NC.shape[1])]
    return np.stack([ap_R for ap_R, _ in areas]), np.stack([roc_R for _, roc_R in areas])


def ap_and_auroc(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve, (R,) each; nan where not defined.

    The definitions are scikit-learn's: steps for average precision, trapezoids for ROC, samples of equal score taken
    together. Both come from one sort.

    Args:
        scores_N: (N,) scores, higher is more likely positive.
        positive_N: (N,) whether each sample is positive.
        weights_RN: (R, N) weights of the samples, >= 0.
    """
    order = np.argsort(-scores_N, kind="stable")
    if not positive_N.any():
        return (np.full(len(weights_RN), np.nan),) * 2
    last_K = np.flatnonzero(np.append(np.diff(scores_N[order]) != 0, True))
    tp_RK = np.cumsum(weights_RN[:, order] * positive_N[order], 1)[:, last_K]
    n_RK = np.cumsum(weights_RN[:, order], 1)[:, last_K]
    fp_RK = n_RK - tp_RK
    positives_R, negatives_R = tp_RK[:, -1], fp_RK[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision_RK = np.where(n_RK > 0, tp_RK / n_RK, 0)
        ap_R = (np.diff(tp_RK, axis=1, prepend=0) * precision_RK).sum(1) / positives_R
        middle_RK = tp_RK - np.diff(tp_RK, axis=1, prepend=0) / 2
        roc_R = (np.diff(fp_RK, axis=1, prepend=0) * middle_RK).sum(1) / (positives_R * negatives_R)
    return ap_R, roc_R


def nan_class_mean(x_CR: np.ndarray) -> np.ndarray:
    """(R,) the mean over the classes that are not nan; nan if all are."""
    defined = np.isfinite(x_CR)
    count_R = defined.sum(0)
    return np.where(count_R > 0, np.where(defined, x_CR, 0).sum(0) / np.maximum(count_R, 1), np.nan)


def target_ranks(p_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """(N,) the number of classes that rank before the target. The lower class wins a tie."""
    own_N1 = p_NC[np.arange(len(targets_N)), targets_N][:, None]
    rank_N = np.count_nonzero(p_NC > own_N1, axis=1)
    tied_N = np.flatnonzero(np.count_nonzero(p_NC == own_N1, axis=1) > 1)
    earlier = np.arange(p_NC.shape[1]) < targets_N[tied_N, None]
    rank_N[tied_N] += ((p_NC[tied_N] == own_N1[tied_N]) & earlier).sum(1)
    return rank_N


def top_k_hits(rank_N: np.ndarray) -> np.ndarray:
    """(2, N) 1 or 0: the target is the first class, and it is among the first five, by `target_ranks`."""
    return np.stack([rank_N < 1, rank_N < 5]).astype(np.float64)


def curve(value_N: np.ndarray, positive_N: np.ndarray) -> dict[str, list[float]]:
    """The precision-recall and ROC curves of a class, by the scores of N samples, with a positive and a negative one.

    A curve has about `CURVE_POINTS` points, all of them on the full curve.

    Returns:
        `recall` and `precision`, which start at the first threshold, `fpr` and `tpr`, which start at 0.
    """
    order = np.argsort(-value_N, kind="stable")
    last_K = np.flatnonzero(np.append(np.diff(value_N[order]) != 0, True))
    tp_K = np.cumsum(positive_N[order])[last_K]
    n_K = last_K + 1
    steps = np.flatnonzero(np.diff(tp_K, prepend=0))  # thresholds with a new positive: both curves turn there
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, CURVE_POINTS // 2).astype(int))]
    points = np.unique([*steps, *np.maximum(steps - 1, 0), len(last_K) - 1])
    recall, fpr = tp_K / tp_K[-1], (n_K - tp_K) / (len(value_N) - tp_K[-1])
    return {
        "recall": recall[points].tolist(),
        "precision": (tp_K / n_K)[points].tolist(),
        "fpr": [0.0, *fpr[points].tolist()],
        "tpr": [0.0, *recall[points].tolist()],
    }
