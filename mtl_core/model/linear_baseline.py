"""Linear baseline: what a model without a network reaches, which every recipe is compared with.

The mean, the standard deviation and the mean step over time of each mel band go into a linear discriminant analysis
with Ledoit-Wolf shrinkage. A track's log-probabilities are the mean of its segments', renormalised. They are linear in
the values up to a constant, so the heads take the mean of the values, as those of a model take the mean embedding.

Legend: C classes, V = 288 values of a segment, N tracks, G groups.
"""

from collections.abc import Mapping

import numpy as np

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.model.cosine_lda import Moments, centre_and_scale, inverse_root, within_covariance


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
    has_sound_N = moments.count_N > 0
    count_N, targets_N = moments.count_N[has_sound_N], targets_N[has_sound_N]
    track_sum_NV = (moments.sum_ND[has_sound_N] - count_N[:, None] * centre_V) / scale_V
    group_N = np.where(targets_N != MISSING, targets_N, n_classes + np.arange(len(targets_N)))
    groups_G, index_N = np.unique(group_N, return_inverse=True)
    mean_GV = np.zeros((len(groups_G), len(centre_V)))
    np.add.at(mean_GV, index_N, track_sum_NV)
    count_G = np.bincount(index_N, count_N)
    mean_GV /= count_G[:, None]
    within_VV = within_covariance(
        moments, mean_GV[index_N], track_sum_NV / count_N[:, None], count_N, scale_V, centre_V
    )
    sample_group_K = index_N[np.cumsum(has_sound_N)[moments.sample_track_K] - 1]
    residual_KV = (moments.sample_KD - centre_V) / scale_V - mean_GV[sample_group_K]
    root_VV = inverse_root(within_VV, residual_KV, count_N.sum())
    is_class_G = groups_G < n_classes
    weight_CV, bias_C = np.zeros((n_classes, len(centre_V))), np.full(n_classes, -1e9)
    weight_GV = mean_GV[is_class_G] @ root_VV @ root_VV
    prior_G = count_G[is_class_G] / count_G[is_class_G].sum()
    weight_CV[groups_G[is_class_G]] = weight_GV / scale_V
    bias_C[groups_G[is_class_G]] = np.log(prior_G) - (weight_GV * mean_GV[is_class_G]).sum(1) / 2
    bias_C -= weight_CV @ centre_V
    return weight_CV.astype(np.float32), bias_C.astype(np.float32)
