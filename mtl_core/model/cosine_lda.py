"""Cosine LDA: heads in closed form, from what a trained trunk gives for its training tracks.

The trunk's values are whitened by their covariance within classes, and rotated to the space that the class means span.
There a segment is cut down to unit length. A track's embedding is the mean of its segments' unit vectors; a head's
logit is its product with the unit vector of a class mean. A class is thus one vector, and the largest product is the
cosine by which unknown artists are told. Artist and language have a part of the embedding each.

Sources: Fisher 1936 and Rao 1948 (discriminant analysis); Dehak et al. 2011, "Front-End Factor Analysis for Speaker
Verification" (cosine scoring in the whitened space).

Legend: N tracks, K segments of a sample, D values of a segment, C classes, H classes that have segments, P values of a
task's part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtl_core.model.class_geometry import Moments, class_geometry
from mtl_core.model.typical import Typical, fit_typical

#: Values of the embedding that each task can have at most; a model of one task has all of them.
PART_VALUES = {"artist": 80, "language": 16}
#: Of the logits. It is near what calibration chooses; only the confidence depends on it.
SCALE = 15.0
#: Of the trunk's values beside the fixed statistics, whose weight is 1. The trunk has learnt the training tracks by
#: heart, so its values look more certain than they are. Shrinkage acts on values of low weight most.
TRUNK_WEIGHT = 0.3


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
    typical: Typical


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
    typical = fit_typical(moments, n_trunk)
    centre_D, scale_D = typical.centre_D, typical.scale_D
    weight_D = np.where((np.arange(len(centre_D)) < n_trunk) & (n_trunk < len(centre_D)), TRUNK_WEIGHT, 1.0)
    parts = {
        task: _fit_part(moments, targets[task], n_classes, values[task], centre_D, scale_D / weight_D)
        for task, n_classes in classes.items()
    }
    return CosineLda(parts=parts, typical=typical)


def _fit_part(
    moments: Moments,
    targets_N: np.ndarray,
    n_classes: int,
    largest: int,
    centre_D: np.ndarray,
    scale_D: np.ndarray,
) -> Part:
    geometry = class_geometry(moments, targets_N, n_classes, centre_D, scale_D, by_track=True)
    middle_D = geometry.mean_HD.mean(0)
    spread_HD = (geometry.mean_HD - middle_D) @ geometry.whiten_DD
    n_values = max(1, min(largest, len(spread_HD) - 1, spread_HD.shape[1]))
    axes_PD = np.linalg.svd(spread_HD, full_matrices=False)[2][:n_values]
    weight_PD = axes_PD @ geometry.whiten_DD / scale_D
    directions_HP = spread_HD @ axes_PD.T
    length_H1 = np.linalg.norm(directions_HP, axis=1, keepdims=True)
    classes_CP = np.zeros((n_classes, n_values))
    classes_CP[geometry.classes_H] = directions_HP / np.where(length_H1 > 0, length_H1, 1)
    return Part(weight_PD=weight_PD, bias_P=-weight_PD @ (centre_D + scale_D * middle_D), classes_CP=classes_CP)
