"""Class geometry: where classes lie among the values of segments, and how the segments of a class differ.

Both closed-form heads are made of it: those of a model (`cosine_lda`) and the linear baseline.

Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
Legend: N tracks, D values of a segment, K segments of a sample, C classes, H classes that have segments, G groups.
"""

from dataclasses import dataclass

import numpy as np

from mtl_core.dataset.vocabulary import MISSING


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over segments, which workers add up, and some of the segments themselves."""

    count_N: np.ndarray  # (N,) segments of each track
    sum_ND: np.ndarray  # (N, D) float64
    scatter_DD: np.ndarray  # (D, D) float64, the sum of x x^T
    sample_KD: np.ndarray  # (K, D) the values of K segments
    sample_track_K: np.ndarray  # (K,) the tracks that they are of


@dataclass(frozen=True, kw_only=True)
class ClassGeometry:
    """The classes of a task in standardised values, (x - centre) / scale."""

    classes_H: np.ndarray  # the classes that have segments
    segments_H: np.ndarray  # the number of their segments
    mean_HD: np.ndarray  # their means
    whiten_DD: np.ndarray  # the inverse square root of the covariance within classes, symmetric


def class_geometry(
    moments: Moments,
    targets_N: np.ndarray,
    n_classes: int,
    centre_D: np.ndarray,
    scale_D: np.ndarray,
    *,
    by_track: bool,
) -> ClassGeometry:
    """The geometry of one task.

    Args:
        moments: of the training segments. Tracks without a segment are left out.
        targets_N: the class of each track, or `MISSING`; at least one track has a class.
        n_classes: C.
        centre_D, scale_D: of the standardised values.
        by_track: whether each track counts once in the mean of its class, instead of each segment.
    """
    has_sound_N = moments.count_N > 0
    count_N, targets_N = moments.count_N[has_sound_N], targets_N[has_sound_N]
    track_mean_ND = (moments.sum_ND[has_sound_N] / count_N[:, None] - centre_D) / scale_D
    # A track without a class is a class of its own: it tells how the segments of one track differ.
    group_N = np.where(targets_N != MISSING, targets_N, n_classes + np.arange(len(targets_N)))
    groups_G, index_N = np.unique(group_N, return_inverse=True)
    weight_N = np.ones(len(count_N)) if by_track else count_N
    mean_GD = np.zeros((len(groups_G), len(centre_D)))
    np.add.at(mean_GD, index_N, weight_N[:, None] * track_mean_ND)
    mean_GD /= np.bincount(index_N, weight_N)[:, None]
    sample_group_K = index_N[np.cumsum(has_sound_N)[moments.sample_track_K] - 1]
    residual_KD = (moments.sample_KD - centre_D) / scale_D - mean_GD[sample_group_K]
    within_DD = _within_covariance(moments, mean_GD[index_N], track_mean_ND, count_N, scale_D, centre_D)
    is_class_G = groups_G < n_classes
    return ClassGeometry(
        classes_H=groups_G[is_class_G],
        segments_H=np.bincount(index_N, count_N)[is_class_G],
        mean_HD=mean_GD[is_class_G],
        whiten_DD=_inverse_root(within_DD, residual_KD, count_N.sum()),
    )


def centre_and_scale(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each value over all segments; a constant value has 1."""
    n = moments.count_N.sum()
    mean_D = moments.sum_ND.sum(0) / n
    variance_D = np.diag(moments.scatter_DD) / n - mean_D**2
    return mean_D, np.sqrt(np.where(variance_D > 1e-12 * (1 + mean_D**2), variance_D, 1))


def _within_covariance(
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


def _inverse_root(within_DD: np.ndarray, residual_KD: np.ndarray, n: float) -> np.ndarray:
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
