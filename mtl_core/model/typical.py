"""Typical segments: how far the values of a segment are from those of the training segments.

Two sizes say so, each by the root mean square of values that have mean 0 and variance 1 in training:

- all values, each by itself. Silence with a click and pure tones are far away.
- the mean energies of the modulation bands, whitened. Noise and hum are far away: each value may be usual, but a voice
  and music change over time in another way, at 1 to 10 Hz (Scheirer & Slaney 1997, "Construction and evaluation of a
  robust multifeature speech/music discriminator"). All values whitened are no use: with a few hundred training
  segments, songs of other artists are as far away as noise.

Legend: K segments of a sample, D values, M modulation bands, B batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.audio.mel import MEL_SHAPE
from mtl_core.model.class_geometry import Moments, centre_and_scale
from mtl_core.model.segment_statistics import modulation_means

TYPICAL_SEGMENTS = 0.99  # share of the training segments whose size counts as typical
SHRINKAGE = 0.1  # share of the identity in the correlation of the modulation bands
STEEPNESS = 8  # of the fall of the length with the size


@dataclass(frozen=True, kw_only=True)
class Typical:
    """What the sizes are computed by, and the sizes that nearly all training segments are below."""

    centre_D: np.ndarray  # mean of each value
    scale_D: np.ndarray  # its standard deviation
    largest: float
    whiten_MD: np.ndarray  # takes the whitened modulation bands; M is 0 where the values have none
    whiten_M: np.ndarray  # is added
    largest_modulation: float


def fit_typical(moments: Moments, n_trunk: int) -> Typical:
    """The sizes of the training segments; of the D values the first `n_trunk` are the trunk's, the others fixed."""
    centre_D, scale_D = centre_and_scale(moments)
    n_values = len(centre_D)
    mean_MD = np.zeros((0, n_values))
    if n_trunk < n_values:
        mean_MD = np.pad(modulation_means(MEL_SHAPE[1]), ((0, 0), (n_trunk, 0)))
    n = moments.count_N.sum()
    covariance_MM = mean_MD @ (moments.scatter_DD / n - np.outer(centre_D, centre_D)) @ mean_MD.T
    scale_M = np.sqrt(np.maximum(np.diag(covariance_MM), 1e-12))
    correlation_MM = (1 - SHRINKAGE) * covariance_MM / np.outer(scale_M, scale_M) + SHRINKAGE * np.eye(len(mean_MD))
    values_M, vectors_MM = np.linalg.eigh(correlation_MM)
    whiten_MD = (vectors_MM / np.sqrt(values_M)) @ vectors_MM.T @ (mean_MD / scale_M[:, None])
    whiten_M = -whiten_MD @ centre_D
    return Typical(
        centre_D=centre_D,
        scale_D=scale_D,
        largest=_largest((moments.sample_KD - centre_D) / scale_D),
        whiten_MD=whiten_MD,
        whiten_M=whiten_M,
        largest_modulation=_largest(moments.sample_KD @ whiten_MD.T + whiten_M),
    )


def _largest(values_KD: np.ndarray) -> float:
    return float(np.quantile(np.sqrt((values_KD**2).mean(1)), TYPICAL_SEGMENTS)) if values_KD.shape[1] else 1.0


class EmbeddingLength(nn.Module):
    """The values of segments (B, D) -> the lengths of their embeddings (B, 1), above 0 and at most 1.

    1 where both sizes are typical; else the share of the typical size in the size, to the power `STEEPNESS`.
    """

    def __init__(self, values: int, modulations: int) -> None:
        super().__init__()
        self.centre_D = nn.Parameter(torch.zeros(values))
        self.scale_D = nn.Parameter(torch.ones(values))
        self.largest = nn.Parameter(torch.ones(1))
        self.modulation = nn.Linear(values, modulations) if modulations else None
        self.largest_modulation = nn.Parameter(torch.ones(1)) if modulations else None

    def set(self, typical: Typical) -> None:
        """Take over fitted values."""
        with torch.no_grad():
            self.centre_D.copy_(torch.from_numpy(typical.centre_D))
            self.scale_D.copy_(torch.from_numpy(typical.scale_D))
            self.largest.fill_(typical.largest)
            if self.modulation is not None and self.largest_modulation is not None:
                self.modulation.weight.copy_(torch.from_numpy(typical.whiten_MD))
                self.modulation.bias.copy_(torch.from_numpy(typical.whiten_M))
                self.largest_modulation.fill_(typical.largest_modulation)

    def forward(self, X_BD: Tensor) -> Tensor:
        """The lengths."""
        size_B1 = _size((X_BD - self.centre_D) / self.scale_D) / self.largest
        if self.modulation is not None and self.largest_modulation is not None:
            size_B1 = torch.maximum(size_B1, _size(self.modulation(X_BD)) / self.largest_modulation)
        return size_B1.clamp(min=1) ** -STEEPNESS


def _size(values_BD: Tensor) -> Tensor:
    return values_BD.square().mean(1, keepdim=True).sqrt()
