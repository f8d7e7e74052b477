"""Cosine LDA: heads in closed form, from what a trained trunk gives for its training tracks.

The trunk's values are whitened by their covariance within classes, and rotated to the space that the class means span.
There a segment is cut down to unit length. A track's embedding is the mean of its segments' unit vectors; a head's
logit is its product with the unit vector of a class mean. A class is thus one vector, and the largest product is the
cosine by which unknown artists are told. Artist and language have a part of the embedding each.

Sources: Fisher 1936 and Rao 1948 (discriminant analysis); Ledoit and Wolf 2004, "A well-conditioned estimator for
large-dimensional covariance matrices"; Dehak et al. 2011, "Front-End Factor Analysis for Speaker Verification" (cosine
scoring in the whitened space).

Legend: N tracks, S segments, D values of the trunk, C classes, E embedding (96), P values of a task's part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtl_core.dataset.vocabulary import MISSING

#: Values of the embedding that each task can have at most; a model of one task has all of them.
PART_VALUES = {"artist": 80, "language": 16}
#: Of the logits. It is near what calibration chooses; only the confidence depends on it.
SCALE = 15.0


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over segments, which workers add up."""

    count_N: np.ndarray  # (N,) segments of each track
    sum_ND: np.ndarray  # (N, D) float64
    scatter_DD: np.ndarray  # (D, D) float64, the sum of x x^T


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of the embedding that a task has: unit vectors of `weight_PD @ x + bias_P`, and its class means."""

    weight_PD: np.ndarray
    bias_P: np.ndarray
    classes_CP: np.ndarray  # unit vectors; 0 for a class without a segment


def fit_cosine_lda(moments: Moments, targets: Mapping[str, np.ndarray], classes: Mapping[str, int]) -> dict[str, Part]:
    """Fit the part of each task.

    Args:
        moments: of the training segments.
        targets: task -> (N,) class of each track, or `MISSING`; at least one track of a task has a class.
        classes: task -> C.
    """
    largest = PART_VALUES if len(classes) > 1 else dict.fromkeys(classes, sum(PART_VALUES.values()))
    return {task: _fit_part(moments, targets[task], n_classes, largest[task]) for task, n_classes in classes.items()}


def _fit_part(moments: Moments, targets_N: np.ndarray, n_classes: int, largest: int) -> Part:
    has_sound_N = moments.count_N > 0
    count_N, sum_ND, targets_N = moments.count_N[has_sound_N], moments.sum_ND[has_sound_N], targets_N[has_sound_N]
    labelled_N = targets_N != MISSING
    # A track without a class is a class of its own: it tells how the segments of one track differ.
    group_N = np.where(labelled_N, targets_N, n_classes + np.arange(len(targets_N)))
    groups_G, index_N = np.unique(group_N, return_inverse=True)
    count_G = np.bincount(index_N, count_N)
    mean_GD = np.zeros((len(groups_G), sum_ND.shape[1]))
    np.add.at(mean_GD, index_N, sum_ND)
    mean_GD /= count_G[:, None]
    within_DD = (moments.scatter_DD - (mean_GD * count_G[:, None]).T @ mean_GD) / count_G.sum()
    track_mean_ND = sum_ND / count_N[:, None]
    whiten_DD = _inverse_root(within_DD, (track_mean_ND - mean_GD[index_N])[labelled_N])
    has_tracks_G = groups_G < n_classes
    class_mean_KD = mean_GD[has_tracks_G]
    centre_D = class_mean_KD.mean(0)
    spread_KD = (class_mean_KD - centre_D) @ whiten_DD
    n_values = max(1, min(largest, len(class_mean_KD) - 1, spread_KD.shape[1]))
    axes_PD = np.linalg.svd(spread_KD, full_matrices=False)[2][:n_values]
    weight_PD = axes_PD @ whiten_DD.T
    classes_CP = np.zeros((n_classes, n_values))
    directions_KP = spread_KD @ axes_PD.T
    length_K1 = np.linalg.norm(directions_KP, axis=1, keepdims=True)
    classes_CP[groups_G[has_tracks_G]] = directions_KP / np.where(length_K1 > 0, length_K1, 1)
    return Part(weight_PD=weight_PD, bias_P=-weight_PD @ centre_D, classes_CP=classes_CP)


def _inverse_root(within_DD: np.ndarray, residual_ND: np.ndarray) -> np.ndarray:
    """W with W^T covariance W = I: an inverse square root of a covariance (D, D), which is shrunk first.

    Its correlations are shrunk towards 0 as much as those of the N residuals of track means would be: the segments of a
    track are no independent samples.
    """
    variance_D = np.diag(within_DD)
    scale_D = np.sqrt(np.where(variance_D > 0, variance_D, 1))
    shrinkage = _ledoit_wolf_shrinkage(residual_ND / scale_D)
    correlation_DD = (1 - shrinkage) * within_DD / np.outer(scale_D, scale_D) + shrinkage * np.eye(len(scale_D))
    values_D, vectors_DD = np.linalg.eigh(correlation_DD)
    root_DD = (vectors_DD / np.sqrt(np.maximum(values_D, 1e-6))) @ vectors_DD.T
    return root_DD / scale_D[:, None]


def _ledoit_wolf_shrinkage(residual_ND: np.ndarray) -> float:
    """The share of the identity, 0 to 1, in the best estimate of the covariance of residuals with mean 0."""
    n = len(residual_ND)
    if n < 2:
        return 1.0
    covariance_DD = residual_ND.T @ residual_ND / n
    n_values = len(covariance_DD)
    distance = (covariance_DD**2).sum() - np.trace(covariance_DD) ** 2 / n_values
    noise = ((residual_ND**2).sum(1) ** 2).mean() - (covariance_DD**2).sum()
    return float(min(1.0, noise / n / distance)) if distance > 0 else 1.0
