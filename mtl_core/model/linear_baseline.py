"""Linear baseline: what a model without a network reaches, which every recipe is compared with.

The mean, the standard deviation and the mean step over time of each mel band go into a linear discriminant analysis
with Ledoit-Wolf shrinkage. A track's log-probabilities are the mean of its segments', renormalised. They are linear in
the values up to a constant, so the heads take the mean of the values, as those of a model take the mean embedding.

Legend: C classes, H classes that have segments, V = 288 values of a segment, N tracks.
"""

from collections.abc import Mapping

import numpy as np

from mtl_core.model.class_geometry import Moments, centre_and_scale, class_geometry


def fit_linear(
    moments: Moments, targets: Mapping[str, np.ndarray], classes: Mapping[str, int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Task -> weights (C, V) and biases (C,) float32.

    Args:
        moments: of the band statistics of the training segments.
        targets: task -> (N,) class of each track, or `MISSING`; at least one track of a task has a class.
        classes: task -> C. A class without a segment has a bias of -1e9.
    """
    centre_V, scale_V = centre_and_scale(moments)
    return {task: _fit(moments, targets[task], n_classes, centre_V, scale_V) for task, n_classes in classes.items()}


def _fit(
    moments: Moments, targets_N: np.ndarray, n_classes: int, centre_V: np.ndarray, scale_V: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    geometry = class_geometry(moments, targets_N, n_classes, centre_V, scale_V, by_track=False)
    weight_HV = geometry.mean_HD @ geometry.whiten_DD @ geometry.whiten_DD
    prior_H = geometry.segments_H / geometry.segments_H.sum()
    weight_CV, bias_C = np.zeros((n_classes, len(centre_V))), np.full(n_classes, -1e9)
    weight_CV[geometry.classes_H] = weight_HV / scale_V
    bias_C[geometry.classes_H] = np.log(prior_H) - (weight_HV * geometry.mean_HD).sum(1) / 2
    bias_C -= weight_CV @ centre_V
    return weight_CV.astype(np.float32), bias_C.astype(np.float32)
