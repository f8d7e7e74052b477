"""Areas: how well scores rank the positives of each class before the rest, as areas under curves and as the curves.

Everything is one-vs-rest on arrays: probabilities (N, C), targets (N,) of class indices. Samples may be weighted, many
weightings at once: a resample of the bootstrap is one.
Legend: N samples, C classes, R weightings, K distinct scores.
"""

import numpy as np

from mtl_core.dataset.vocabulary import MISSING


def ap_and_auroc_per_class(
    p_NC: np.ndarray, targets_N: np.ndarray, weights_RN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC-PR and AUC-ROC, (C, R) each, of every class against the rest."""
    areas = [ap_and_auroc(p_NC[:, c], targets_N == c, weights_RN) for c in range(p_NC.shape[1])]
    return np.stack([a for a, _ in areas]), np.stack([b for _, b in areas])


def ap_and_auroc(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve, (R,) each, under R weightings of the samples; nan: undefined.

    As scikit-learn defines them (steps for the one, trapezoids for the other, equal scores together), from one sort.
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
    """(R,) mean over the classes that are defined."""
    defined = np.isfinite(x_CR)
    count_R = defined.sum(0)
    return np.where(count_R > 0, np.where(defined, x_CR, 0).sum(0) / np.maximum(count_R, 1), np.nan)


def top_k_hits(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """(2, N) whether the target is the first, and among the first five; ties go to the class that comes first."""
    own_N1 = probabilities_NC[np.arange(len(targets_N)), targets_N][:, None]
    earlier_NC = np.arange(probabilities_NC.shape[1]) < targets_N[:, None]
    rank_N = ((probabilities_NC > own_N1) | ((probabilities_NC == own_N1) & earlier_NC)).sum(1)
    return np.stack([rank_N < 1, rank_N < 5]).astype(np.float64)


def curves(probabilities_NC: np.ndarray, targets_N: np.ndarray, *, most: int = 80) -> dict[int, dict[str, list[float]]]:
    """What each class that has a positive and a negative scores against the rest at every threshold.

    Args:
        probabilities_NC, targets_N: as in `metrics`, (N, C) and (N,).
        most: points of a curve, about; >= 4.

    Returns:
        class -> `recall` and `precision` (from the first threshold on), `fpr` and `tpr` (from 0, 0 on).
    """
    known = np.asarray(targets_N) != MISSING
    p_NC, t_N = np.asarray(probabilities_NC)[known], np.asarray(targets_N)[known]
    found = {}
    for c in np.unique(t_N):
        order = np.argsort(-p_NC[:, c], kind="stable")
        last_K = np.flatnonzero(np.append(np.diff(p_NC[order, c]) != 0, True))
        tp_K = np.cumsum(t_N[order] == c)[last_K]
        n_K = last_K + 1
        if tp_K[-1] < len(t_N):
            steps = np.flatnonzero(np.diff(tp_K, prepend=0))  # where a positive is reached: both curves turn there
            steps = steps[np.unique(np.linspace(0, len(steps) - 1, most // 2).astype(int))]
            kept = np.unique([*steps, *np.maximum(steps - 1, 0), len(last_K) - 1])
            recall, fpr = tp_K / tp_K[-1], (n_K - tp_K) / (len(t_N) - tp_K[-1])
            found[int(c)] = {
                "recall": recall[kept].tolist(),
                "precision": (tp_K / n_K)[kept].tolist(),
                "fpr": [0.0, *fpr[kept].tolist()],
                "tpr": [0.0, *recall[kept].tolist()],
            }
    return found
