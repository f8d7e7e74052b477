"""Segment statistics: fixed statistics over time of a log-mel segment, beside the trunk for the closed-form heads.

First-order ones are the mean, the standard deviation and the mean step of each band. Second-order ones are the standard
deviations and the correlations of cepstra and of their slopes: what a voice does together. Modulation energies say how
fast the cepstra change: vibrato, syllables, tempo. Nothing is learnt here.

Legend: B batch, T frames, F bands, C cepstra, K cepstra and their slopes, M modulation bands, P pairs, Q waves.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

CEPSTRA = 12
#: Edges of the modulation bands, in periods a segment: 11 bands from 1/3 to 23 Hz.
MODULATION_EDGES = (1, 2, 3, 4, 6, 8, 12, 17, 24, 34, 48, 68)
MIN_VARIANCE = 1e-5  # over time: the logarithm has no finite value at 0
MIN_ENERGY = 1e-3  # of a modulation band
MAX_CORRELATION = 0.99  # Fisher's z has no finite value at 1


class SegmentStatistics(nn.Module):
    """Log-mel segments (B, 1, T, F) -> (B, 720) float32 for F = 96: 3 F of the bands, 300 and 132 of the cepstra.

    The cepstra are the coefficients 1 to 12 of an orthonormal DCT-II over the bands. Their slope is the difference of
    the frames after and before. Correlations are transformed by Fisher's z. A modulation energy is the logarithm of the
    mean power of a cepstrum, under a Hann window, in a band of frequencies.
    """

    dct_FC: Tensor
    pairs_2P: Tensor
    waves_TQ: Tensor
    mean_QM: Tensor

    def __init__(self, frames: int, bands: int) -> None:
        super().__init__()
        band_F1, cepstrum_C = torch.arange(bands)[:, None] + 0.5, torch.arange(1, CEPSTRA + 1)
        dct_FC = math.sqrt(2 / bands) * torch.cos(math.pi * band_F1 * cepstrum_C / bands)
        frequency_Q = torch.arange(1, MODULATION_EDGES[-1])
        phase_TQ = 2 * math.pi * torch.arange(frames)[:, None] * frequency_Q / frames
        window_T1 = torch.hann_window(frames, periodic=False)[:, None]
        edges = itertools.pairwise(MODULATION_EDGES)
        mean_QM = torch.stack([((frequency_Q >= a) & (frequency_Q < b)) / (b - a) for a, b in edges], 1)
        for name, constant in {
            "dct_FC": dct_FC,
            "pairs_2P": torch.triu_indices(2 * CEPSTRA, 2 * CEPSTRA, 1),
            "waves_TQ": torch.cat([window_T1 * torch.cos(phase_TQ), window_T1 * torch.sin(phase_TQ)], 1),
            "mean_QM": torch.cat([mean_QM, mean_QM]),
        }.items():
            self.register_buffer(name, constant, persistent=False)

    def forward(self, X_B1TF: Tensor) -> Tensor:
        """The statistics of segments."""
        X_BTF = _centred(X_B1TF)
        cepstra_BTC = X_BTF @ self.dct_FC
        return torch.cat([_of_bands(X_BTF), self._second_order(cepstra_BTC), self._modulation(cepstra_BTC)], 1)

    def _second_order(self, cepstra_BTC: Tensor) -> Tensor:
        slopes_BTC = cepstra_BTC[:, 2:] - cepstra_BTC[:, :-2]
        Z_BTK = torch.cat([cepstra_BTC[:, 1:-1], slopes_BTC], 2)
        Z_BTK = Z_BTK - Z_BTK.mean(1, keepdim=True)
        covariance_BKK = Z_BTK.transpose(1, 2) @ Z_BTK / Z_BTK.shape[1]
        std_BK = Z_BTK.square().mean(1).clamp(min=MIN_VARIANCE).sqrt()
        first_P, second_P = self.pairs_2P[0], self.pairs_2P[1]
        products_BP = std_BK[:, first_P] * std_BK[:, second_P]
        r_BP = (covariance_BKK[:, first_P, second_P] / products_BP).clamp(-MAX_CORRELATION, MAX_CORRELATION)
        return torch.cat([std_BK.log(), ((1 + r_BP) / (1 - r_BP)).log() / 2], 1)

    def _modulation(self, cepstra_BTC: Tensor) -> Tensor:
        Z_BCT = (cepstra_BTC - cepstra_BTC.mean(1, keepdim=True)).transpose(1, 2)
        return ((Z_BCT @ self.waves_TQ).square() @ self.mean_QM + MIN_ENERGY).log().flatten(1)


def band_statistics(X_B1TF: Tensor) -> Tensor:
    """Log-mel segments (B, 1, T, F) -> (B, 3 F): the first-order statistics alone, which the linear baseline uses."""
    return _of_bands(_centred(X_B1TF))


def _centred(X_B1TF: Tensor) -> Tensor:
    X_BTF = X_B1TF.squeeze(1)
    return X_BTF - X_BTF.mean((1, 2), keepdim=True)


def _of_bands(X_BTF: Tensor) -> Tensor:
    mean_BF = X_BTF.mean(1)
    std_BF = (X_BTF - mean_BF[:, None]).square().mean(1).sqrt()
    step_BF = (X_BTF[:, 1:] - X_BTF[:, :-1]).abs().mean(1)
    return torch.cat([mean_BF, std_BF, step_BF], 1)


def n_statistics(bands: int) -> int:
    """The number of values that `SegmentStatistics` gives."""
    series = 2 * CEPSTRA
    return 3 * bands + series + series * (series - 1) // 2 + CEPSTRA * (len(MODULATION_EDGES) - 1)


def modulation_means(bands: int) -> np.ndarray:
    """(M, D) the matrix that takes the mean of each modulation band over the cepstra out of the D statistics."""
    n_bands = len(MODULATION_EDGES) - 1
    of_cepstra_MQ = np.tile(np.eye(n_bands) / CEPSTRA, CEPSTRA)
    return np.pad(of_cepstra_MQ, ((0, 0), (n_statistics(bands) - of_cepstra_MQ.shape[1], 0)))
