"""Statistics trunk: what a segment sounds like on the whole, whenever it sounds so.

Convolutions over time, whose input channels are the mel bands; then the mean and the standard deviation over time of
what they find, and of the bands themselves, are projected to the embedding. This is the x-vector of speaker and
language recognition (Snyder et al., "X-vectors: Robust DNN embeddings for speaker recognition", 2018), much smaller.
The paper's trunk flattens a map of 3 moments instead, and has to learn a voice anew for each.

The mean level of a segment is taken off first; each band is then normalised by its running statistics.
Legend: B batch, T frames, F bands, H hidden channels, P pooled values, E embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 128
LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1))  # frames of the kernel, and between two of them: 15 frames (0.24 s) in all


class StatisticsTrunk(nn.Module):
    """Log-mel segments (B, 1, T, F) -> embeddings (B, E), float32.

    Args:
        bands: F.
        embedding: E.
        dropout: share of the hidden values dropped after each layer.
        eps, momentum: of the norms.
    """

    def __init__(self, bands: int, embedding: int, *, dropout: float, eps: float, momentum: float) -> None:
        super().__init__()
        self.bands_norm = nn.BatchNorm1d(bands, eps=1e-5, momentum=momentum, affine=False)
        layers: list[nn.Module] = []
        for at, (frames, apart) in enumerate(LAYERS):
            layers += [
                nn.Conv1d(HIDDEN if at else bands, HIDDEN, frames, dilation=apart, padding=(frames // 2) * apart),
                nn.ReLU(),
                nn.BatchNorm1d(HIDDEN, eps=eps, momentum=momentum),
                nn.Dropout(dropout),
            ]
        self.layers = nn.Sequential(*layers)
        pooled = 2 * HIDDEN + 3 * bands
        self.pooled_norm = nn.BatchNorm1d(pooled, eps=eps, momentum=momentum)
        self.project = nn.Linear(pooled, embedding)

    def forward(self, X_B1TF: Tensor) -> Tensor:
        X_BTF = X_B1TF.squeeze(1)
        X_BFT = self.bands_norm((X_BTF - X_BTF.mean((1, 2), keepdim=True)).transpose(1, 2))
        step_BF = (X_BFT[..., 1:] - X_BFT[..., :-1]).abs().mean(-1)
        P_BP = torch.cat([_statistics(self.layers(X_BFT)), _statistics(X_BFT), step_BF], 1)
        return self.project(self.pooled_norm(P_BP))


def _statistics(X_BHT: Tensor) -> Tensor:
    """Mean and standard deviation over time, (B, 2 H)."""
    mean_BH = X_BHT.mean(-1)
    variance_BH = (X_BHT - mean_BH[..., None]).square().mean(-1)
    return torch.cat([mean_BH, functional.relu(variance_BH - 1e-5).add(1e-5).sqrt()], 1)  # no endless slope at 0
