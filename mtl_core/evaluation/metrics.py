"""Metrics: the scores of probabilities against labels, with intervals and chance.

Classes are scored one against the rest. Targets (N,) are class indices; samples whose target is
`MISSING` are left out. The macro mean of AUC-PR is over the classes with a positive sample, that of AUC-ROC over those
with a positive and a negative one.

Legend: N samples (tracks or segments), C classes, K = 2 (top-1, top-5).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_core.evaluation.baselines import chance, random_order_ap
from mtl_core.evaluation.bootstrap import (
    EXACT_VALUES,
    RESAMPLES,
    draw_songs,
    score_resamples,
    score_resamples_by_rank,
    share_intervals,
)
from mtl_core.evaluation.class_scores import ArrayScores, ClassScores, labelled
from mtl_core.evaluation.ranking import micro_areas, predicted, rank, top_k_hits
from mtl_core.evaluation.reliability import calibration_error, reliability

#: The entry `ci` of `sampled`
BY_RANK = "of AUC-PR and AUC-ROC they are exact in the songs of a class and to first order in those of other classes"


def scores(
    probabilities: ClassScores | np.ndarray,
    targets_N: np.ndarray,
    songs_N: Sequence[str] | np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score of one task at one level (tracks or segments), as JSON values; None where a score is not defined.

    All scores are exact. Their intervals are exact up to `bootstrap.EXACT_VALUES`; above see
    `bootstrap.score_resamples_by_rank`.

    Args:
        probabilities: of N samples over C classes; rows sum to 1.
        targets_N: (N,) class indices, or `MISSING`.
        songs_N: (N,) the song (track) of each sample, the unit of the bootstrap. None: each sample is a song.
        resamples, seed: of the bootstrap; 0 resamples for no intervals.

    Returns:
        n, n_songs, classes, classes_covered (classes with a positive sample); auc_pr and auc_roc, _macro and _micro;
        top_1 and top_5 (shares, 0 to 1); nll (nats); ece and ece_squared of the predicted class, see `reliability`;
        `ci`: headline or ece -> 95% interval [low, high]; `sampled`: what is not exact -> how it was computed;
        `chance`: see `baselines.chance`; `per_class`: support, auc_pr, auc_pr_chance, auc_roc and recall, in the order
        of the classes; `reliability`: see there.

    Raises:
        ValueError: the shapes do not fit, or a target is not a class.
    """
    if isinstance(probabilities, np.ndarray):
        if probabilities.ndim != 2:
            raise ValueError(f"probabilities must be (N, C), got shape {probabilities.shape}")
        probabilities = ArrayScores(probabilities)
    labelled_N = labelled(probabilities, targets_N)
    all_songs_N = np.arange(len(labelled_N)) if songs_N is None else np.asarray(songs_N)
    if not labelled_N.all():
        probabilities = probabilities.take(np.flatnonzero(labelled_N))
    t, songs = np.asarray(targets_N)[labelled_N], all_songs_N[labelled_N]
    n, n_classes = probabilities.shape
    ranks, best = rank(probabilities, t), predicted(probabilities, t)
    ap_C, roc_C = np.full((2, n_classes), np.nan)
    ap_C[ranks.covered_D], roc_C[ranks.covered_D] = (areas[0] for areas in ranks.areas(np.ones((1, n))))
    hits_KN = top_k_hits(best.rank_N)
    micro_ap, micro_roc = micro_areas(probabilities, t)
    draws = draw_songs(songs, resamples=resamples, seed=seed)
    ece, ece_squared, ece_interval = calibration_error(best.confidence_N, hits_KN[0], songs, draws)
    values = {
        "auc_pr_macro": _mean(ap_C),
        "auc_roc_macro": _mean(roc_C),
        "auc_pr_micro": _to_json(micro_ap),
        "auc_roc_micro": _to_json(micro_roc),
        "top_1": _mean(hits_KN[0]),
        "top_5": _mean(hits_KN[1]),
        "nll": _mean(-np.log(np.maximum(best.true_probability_N, 1e-12))),
        "ece": ece,
        "ece_squared": ece_squared,
    }
    exact = isinstance(probabilities, ArrayScores) and n * n_classes * resamples <= EXACT_VALUES
    if exact:
        resampled = score_resamples(probabilities.rows(0, n), t, songs, draws)
    else:
        resampled = score_resamples_by_rank(ranks, hits_KN, songs, draws)
    support_C = np.bincount(t, minlength=n_classes)
    with np.errstate(invalid="ignore"):
        recall_C = np.bincount(t, hits_KN[0], minlength=n_classes) / support_C
    return {
        "n": n,
        "n_songs": len(np.unique(songs)),
        "classes": n_classes,
        "classes_covered": len(ranks.covered_D),
        **values,
        "ci": {**share_intervals(resampled, values), "ece": ece_interval},
        "sampled": {} if exact or not resamples else {"ci": BY_RANK},
        "chance": chance(t, n_classes),
        "per_class": {
            "support": support_C.tolist(),
            "auc_pr_chance": np.where(support_C > 0, random_order_ap(support_C, n), 0).tolist(),
            "auc_pr": [_to_json(x) for x in ap_C],
            "auc_roc": [_to_json(x) for x in roc_C],
            "recall": [_to_json(x) for x in recall_C],
        },
        "reliability": reliability(best.confidence_N, hits_KN[0]),
    }


def _mean(x: np.ndarray) -> float | None:
    """The mean of the finite values; None if there are none."""
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else None


def _to_json(x: float) -> float | None:
    """A JSON value: None for nan."""
    return float(x) if np.isfinite(x) else None
