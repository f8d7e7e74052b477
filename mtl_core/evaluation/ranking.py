"""Ranking: areas under the precision-recall and ROC curves, the curves themselves, and top-k hits.

Classes are scored one against the rest. Probabilities are (N, C), targets (N,) class indices. Samples can be weighted,
with many weightings at once: each resample of the bootstrap is one weighting.

Legend: N samples, C classes, R weightings, K distinct scores.
"""

import numpy as np

from mtl_core.dataset.vocabulary import MISSING

CURVE_POINTS = 80  # of a curve, about; >= 4


def is_labelled(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """(N,) whether each sample has a target.

    Raises:
        ValueError: the shapes do not fit, or a target is not a class.
    """
    targets_N, shape = np.asarray(targets_N), np.shape(probabilities_NC)
    if len(shape) != 2 or targets_N.shape != shape[:1] or shape[1] < 1:
        raise ValueError(f"probabilities (N, C) and targets (N,) do not fit: {shape} and {targets_N.shape}")
    if len(targets_N) and not (targets_N.min() >= MISSING and targets_N.max() < shape[1]):
        raise ValueError(
            f"targets must be {MISSING} (missing) to {shape[1] - 1}, got {targets_N.min()} to {targets_N.max()}"
        )
    return targets_N != MISSING


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


def top_k_hits(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """(2, N) 1 or 0: the target is the first class, and it is among the first five. The lower class wins a tie."""
    own_N1 = probabilities_NC[np.arange(len(targets_N)), targets_N][:, None]
    earlier_NC = np.arange(probabilities_NC.shape[1]) < targets_N[:, None]
    rank_N = ((probabilities_NC > own_N1) | ((probabilities_NC == own_N1) & earlier_NC)).sum(1)
    return np.stack([rank_N < 1, rank_N < 5]).astype(np.float64)


def curves(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> dict[int, dict[str, list[float]]]:
    """The precision-recall and ROC curves of each class that has a positive and a negative sample.

    A curve has about `CURVE_POINTS` points, all of them on the full curve. Targets can be `MISSING`.

    Returns:
        class -> `recall` and `precision`, which start at the first threshold, `fpr` and `tpr`, which start at 0.
    """
    labelled = is_labelled(probabilities_NC, targets_N)
    p_NC, t_N = np.asarray(probabilities_NC)[labelled], np.asarray(targets_N)[labelled]
    curve_of = {}
    for c in np.unique(t_N):
        order = np.argsort(-p_NC[:, c], kind="stable")
        last_K = np.flatnonzero(np.append(np.diff(p_NC[order, c]) != 0, True))
        tp_K = np.cumsum(t_N[order] == c)[last_K]
        n_K = last_K + 1
        if tp_K[-1] < len(t_N):
            steps = np.flatnonzero(np.diff(tp_K, prepend=0))  # thresholds with a new positive: both curves turn there
            steps = steps[np.unique(np.linspace(0, len(steps) - 1, CURVE_POINTS // 2).astype(int))]
            points = np.unique([*steps, *np.maximum(steps - 1, 0), len(last_K) - 1])
            recall, fpr = tp_K / tp_K[-1], (n_K - tp_K) / (len(t_N) - tp_K[-1])
            curve_of[int(c)] = {
                "recall": recall[points].tolist(),
                "precision": (tp_K / n_K)[points].tolist(),
                "fpr": [0.0, *fpr[points].tolist()],
                "tpr": [0.0, *recall[points].tolist()],
            }
    return curve_of
