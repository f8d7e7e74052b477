"""Metrics: the scores of probabilities against labels, with intervals and chance.

Classes are scored one against the rest. Probabilities are (N, C), targets (N,) class indices; samples whose target is
`MISSING` are left out. The macro mean of AUC-PR is over the classes with a positive sample, that of AUC-ROC over those
with a positive and a negative one.

Legend: N samples (tracks or segments), C classes, K = 2 (top-1, top-5).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_core.evaluation.baselines import chance, random_order_ap
from mtl_core.evaluation.bootstrap import RESAMPLES, draw_songs, score_resamples, share_intervals
from mtl_core.evaluation.ranking import ap_and_auroc, ap_and_auroc_per_class, is_labelled, top_k_hits

BINS = 10


def scores(
    probabilities_NC: np.ndarray,
    targets_N: np.ndarray,
    songs_N: Sequence[str] | np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score of one task at one level (tracks or segments), as JSON values; None where a score is not defined.

    Args:
        probabilities_NC: (N, C), rows sum to 1.
        targets_N: (N,) class indices, or `MISSING`.
        songs_N: (N,) the song (track) of each sample, the unit of the bootstrap. None: each sample is a song.
        resamples, seed: of the bootstrap; 0 resamples for no intervals.

    Returns:
        n, n_songs, classes, classes_covered (classes with a positive sample); auc_pr and auc_roc, _macro and _micro;
        top_1 and top_5 (shares, 0 to 1); nll (nats) and ece of the predicted class; `ci`: headline -> 95% interval
        [low, high]; `chance`: see `baselines.chance`; `per_class`: support, auc_pr, auc_pr_chance, auc_roc and recall,
        in the order of the classes; `reliability`: see there.

    Raises:
        ValueError: the shapes do not fit, or a target is not a class.
    """
    labelled = is_labelled(probabilities_NC, targets_N)
    p, t = np.asarray(probabilities_NC, np.float64)[labelled], np.asarray(targets_N)[labelled]
    songs = (np.arange(len(labelled)) if songs_N is None else np.asarray(songs_N))[labelled]
    n, n_classes = len(t), p.shape[1]
    ap_C, roc_C = (areas[:, 0] for areas in ap_and_auroc_per_class(p, t, np.ones((1, n))))
    hits_KN = top_k_hits(p, t)
    covered = np.flatnonzero(np.isin(np.arange(n_classes), t))
    micro = ap_and_auroc(p[:, covered].ravel(), (t[:, None] == covered).ravel(), np.ones((1, n * len(covered))))
    values = {
        "auc_pr_macro": _mean(ap_C),
        "auc_roc_macro": _mean(roc_C),
        "auc_pr_micro": _to_json(micro[0][0]),
        "auc_roc_micro": _to_json(micro[1][0]),
        "top_1": _mean(hits_KN[0]),
        "top_5": _mean(hits_KN[1]),
        "nll": _mean(-np.log(np.maximum(p[np.arange(n), t], 1e-12))),
        "ece": calibration_error(p, t),
    }
    resampled = score_resamples(p, t, songs, draw_songs(songs, resamples=resamples, seed=seed))
    support_C = np.bincount(t, minlength=n_classes)
    counts = {"n": n, "n_songs": len(np.unique(songs)), "classes": n_classes, "classes_covered": len(covered)}
    return {
        **counts,
        **values,
        "ci": share_intervals(resampled, values),
        "chance": chance(t, n_classes),
        "per_class": {
            "support": support_C.tolist(),
            "auc_pr_chance": np.where(support_C > 0, random_order_ap(support_C, n), 0).tolist(),
            "auc_pr": [_to_json(x) for x in ap_C],
            "auc_roc": [_to_json(x) for x in roc_C],
            "recall": [_mean(hits_KN[0][t == c]) for c in range(n_classes)],
        },
        "reliability": reliability(p, t),
    }


def reliability(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> list[dict[str, float]]:
    """Confidence and accuracy of the predicted class, in those of `BINS` equal bins of confidence that have samples."""
    confidence_N = probabilities_NC.max(1, initial=0.0)
    right_N = top_k_hits(probabilities_NC, targets_N)[0]
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    return [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": int((bin_N == b).sum()),
            "confidence": float(confidence_N[bin_N == b].mean()),
            "accuracy": float(right_N[bin_N == b].mean()),
        }
        for b in np.unique(bin_N)
    ]


def calibration_error(probabilities_NC: np.ndarray, targets_N: np.ndarray) -> float | None:
    """Expected calibration error, 0 to 1; None without samples. Source: Guo et al. 2017."""
    bins = reliability(probabilities_NC, targets_N)
    gaps = [b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins]
    return sum(gaps) / len(targets_N) if bins else None


def _mean(x: np.ndarray) -> float | None:
    """The mean of the finite values; None if there are none."""
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else None


def _to_json(x: float) -> float | None:
    """A JSON value: None for nan."""
    return float(x) if np.isfinite(x) else None
