"""Moments of segments, as `embedding_moments` gives them."""

import numpy as np

from mtl_core.model.class_geometry import Moments


def moments(x_NSD: np.ndarray) -> Moments:
    """The moments of the values (N, S, D) of N tracks of S segments; all segments are in the sample."""
    flat_SD = x_NSD.reshape(-1, x_NSD.shape[-1])
    return Moments(
        count_N=np.full(len(x_NSD), float(x_NSD.shape[1])),
        sum_ND=x_NSD.sum(1),
        scatter_DD=flat_SD.T @ flat_SD,
        sample_KD=flat_SD,
        sample_track_K=np.repeat(np.arange(len(x_NSD)), x_NSD.shape[1]),
    )
