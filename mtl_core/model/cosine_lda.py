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
#: Of the trunk's values beside the fixed statistics, whose weight is 1. The trunk has learnt the training tracks by
#: heart, so its values look more certain than they are. Shrinkage acts on values of low weight most.
TRUNK_WEIGHT = 0.3
TYPICAL_SEGMENTS = 0.99  # share of the training segments whose values count as typical


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over segments, which workers add up, and some of the segments themselves."""

    count_N: np.ndarray  # (N,) segments of each track
    sum_ND: np.ndarray  # (N, D) float64
    scatter_DD: np.ndarray  # (D, D) float64, the sum of x x^T
    sample_KD: np.ndarray  # (K, D) the values of K segments
    sample_track_K: np.ndarray  # (K,) the tracks that they are of


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of the embedding that a task has: unit vectors of `weight_PD @ x + bias_P`, and its class means."""

    weight_PD: np.ndarray
    bias_P: np.ndarray
    classes_CP: np.ndarray  # unit vectors; 0 for a class without a segment


@dataclass(frozen=True, kw_only=True)
class CosineLda:
    """The parts of the tasks, and what tells a segment that is unlike the training segments."""

    parts: dict[str, Part]
    centre_D: np.ndarray  # mean of each value
    scale_D: np.ndarray  # its standard deviation
    largest: float  # root mean square of standardised values that nearly all training segments are below


def fit_cosine_lda(
    moments: Moments, targets: Mapping[str, np.ndarray], classes: Mapping[str, int], n_trunk: int
) -> CosineLda:
    """Fit the parts of the tasks.

    Args:
        moments: of the training segments.
        targets: task -> (N,) class of each track, or `MISSING`; at least one track of a task has a class.
        classes: task -> C.
        n_trunk: number of the trunk's values, which come first; the other values are fixed statistics.
    """
    values = PART_VALUES if len(classes) > 1 else dict.fromkeys(classes, sum(PART_VALUES.values()))
    centre_D, scale_D = centre_and_scale(moments)
    weight_D = np.where((np.arange(len(centre_D)) < n_trunk) & (n_trunk < len(centre_D)), TRUNK_WEIGHT, 1.0)
    parts = {
        task: _fit_part(moments, targets[task], n_classes, values[task], centre_D, scale_D / weight_D)
        for task, n_classes in classes.items()
    }
    size_K = np.sqrt((((moments.sample_KD - centre_D) / scale_D) ** 2).mean(1))
    return CosineLda(
        parts=parts, centre_D=centre_D, scale_D=scale_D, largest=float(np.quantile(size_K, TYPICAL_SEGMENTS))
    )


def _fit_part(
    moments: Moments,
    targets_N: np.ndarray,
    n_classes: int,
    largest: int,
    centre_D: np.ndarray,
    scale_D: np.ndarray,
) -> Part:
    has_sound_N = moments.count_N > 0
    count_N, targets_N = moments.count_N[has_sound_N], targets_N[has_sound_N]
    track_mean_ND = (moments.sum_ND[has_sound_N] / count_N[:, None] - centre_D) / scale_D
    # A track without a class is a class of its own: it tells how the segments of one track differ.
    group_N = np.where(targets_N != MISSING, targets_N, n_classes + np.arange(len(targets_N)))
    groups_G, index_N = np.unique(group_N, return_inverse=True)
    mean_GD = np.zeros((len(groups_G), len(centre_D)))
    np.add.at(mean_GD, index_N, track_mean_ND)
    mean_GD /= np.bincount(index_N)[:, None]
    sample_group_K = index_N[np.cumsum(has_sound_N)[moments.sample_track_K] - 1]
    residual_KD = (moments.sample_KD - centre_D) / scale_D - mean_GD[sample_group_K]
    whiten_DD = inverse_root(
        within_covariance(moments, mean_GD[index_N], track_mean_ND, count_N, scale_D, centre_D),
        residual_KD,
        count_N.sum(),
    )
    has_tracks_G = groups_G < n_classes
    class_mean_KD = mean_GD[has_tracks_G]
    middle_D = class_mean_KD.mean(0)
    spread_KD = (class_mean_KD - middle_D) @ whiten_DD
    n_values = max(1, min(largest, len(class_mean_KD) - 1, spread_KD.shape[1]))
    axes_PD = np.linalg.svd(spread_KD, full_matrices=False)[2][:n_values]
    weight_PD = axes_PD @ whiten_DD / scale_D
    directions_KP = spread_KD @ axes_PD.T
    length_K1 = np.linalg.norm(directions_KP, axis=1, keepdims=True)
    classes_CP = np.zeros((n_classes, n_values))
    classes_CP[groups_G[has_tracks_G]] = directions_KP / np.where(length_K1 > 0, length_K1, 1)
    return Part(weight_PD=weight_PD, bias_P=-weight_PD @ (centre_D + scale_D * middle_D), classes_CP=classes_CP)


def centre_and_scale(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each value over all segments; a constant value has 1."""
    n = moments.count_N.sum()
    mean_D = moments.sum_ND.sum(0) / n
    variance_D = np.diag(moments.scatter_DD) / n - mean_D**2
    return mean_D, np.sqrt(np.where(variance_D > 1e-12 * (1 + mean_D**2), variance_D, 1))


def within_covariance(
    moments: Moments,
    group_mean_ND: np.ndarray,
    track_mean_ND: np.ndarray,
    count_N: np.ndarray,
    scale_D: np.ndarray,
    centre_D: np.ndarray,
) -> np.ndarray:
    """(D, D) the covariance of standardised segments about the means of their groups."""
    n = count_N.sum()
    scatter_DD = moments.scatter_DD / n - np.outer(centre_D, centre_D)
    cross_DD = (group_mean_ND * count_N[:, None]).T @ track_mean_ND / n
    means_DD = (group_mean_ND * count_N[:, None]).T @ group_mean_ND / n
    return scatter_DD / np.outer(scale_D, scale_D) - cross_DD - cross_DD.T + means_DD


def inverse_root(within_DD: np.ndarray, residual_KD: np.ndarray, n: float) -> np.ndarray:
    """The inverse square root of the covariance of n residuals, which is shrunk by Ledoit and Wolf's rule first."""
    mean_variance = float(np.trace(within_DD)) / len(within_DD)
    shrinkage = _ledoit_wolf_shrinkage(within_DD, residual_KD, n)
    shrunk_DD = (1 - shrinkage) * within_DD + shrinkage * mean_variance * np.eye(len(within_DD))
    values_D, vectors_DD = np.linalg.eigh(shrunk_DD)
    floor = 1e-9 * max(mean_variance, 1e-9)
    return (vectors_DD / np.sqrt(np.maximum(values_D, floor))) @ vectors_DD.T


def _ledoit_wolf_shrinkage(covariance_DD: np.ndarray, residual_KD: np.ndarray, n: float) -> float:
    """The share of the identity, 0 to 1, in the best estimate of a covariance of n residuals, of which K are given."""
    distance = (covariance_DD**2).sum() - np.trace(covariance_DD) ** 2 / len(covariance_DD)
    noise = ((residual_KD**2).sum(1) ** 2).mean() - (covariance_DD**2).sum()
    return float(np.clip(noise / n / distance, 0, 1)) if distance > 0 else 1.0
