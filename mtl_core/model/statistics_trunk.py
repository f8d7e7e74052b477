"""An x-vector-style trunk: convolutions over time, then mean and standard-deviation pooling.

A small 2-D convolution makes 8 maps. 1-D convolutions over time follow; their input channels are the bands of all maps.
The mean and the standard deviation over time of their outputs, and of the bands themselves, are projected to the
embedding. Source: Snyder et al., "X-vectors: Robust DNN embeddings for speaker recognition", 2018; this trunk is much
smaller. The paper's trunk flattens a map of 3 moments instead, and has to learn a voice anew for each moment.

The mean level of a segment is subtracted first. Each band is then normalised by its running statistics. Hidden values
are normalised within a segment (group norm): batch statistics scored less, see docs/recipes.md.

Legend: B batch, T frames, F bands, M maps, H hidden channels, E embedding.
"""

import torch
from torch import Tensor, nn

MAPS = 8
MAP_KERNEL, MAP_POOLING = (3, 5), (2, 4)  # frames, bands
HIDDEN = 128
LAYERS = ((3, 1), (3, 2), (1, 1))  # kernel and dilation, in pooled frames; together they see 0.24 s
GROUPS = 8  # of hidden channels; each is normalised over its channels and time
POOLED_DROPOUT = 0.3
MIN_VARIANCE = 1e-5  # of a band over time: the square root has no finite slope at 0


class StatisticsTrunk(nn.Module):
    """Log-mel segments (B, 1, T, F) -> embeddings (B, E), float32.

    Args:
        bands, embedding: F and E.
        dropout: share of the hidden values that are dropped after each layer.
        eps, momentum: of the two norms with running statistics: of the bands, and of the pooled values.
    """

    def __init__(self, bands: int, embedding: int, *, dropout: float, eps: float, momentum: float) -> None:
        super().__init__()
        self.bands_norm = nn.BatchNorm1d(bands, eps=eps, momentum=momentum, affine=False)
        self.maps = nn.Sequential(
            nn.Conv2d(1, MAPS, MAP_KERNEL, padding=(MAP_KERNEL[0] // 2, MAP_KERNEL[1] // 2)),
            nn.ReLU(),
            nn.GroupNorm(1, MAPS),
            nn.MaxPool2d(MAP_POOLING),
        )
        layers: list[nn.Module] = []
        channels = MAPS * (bands // MAP_POOLING[1])
        for kernel, dilation in LAYERS:
            layers += [
                nn.Conv1d(channels, HIDDEN, kernel, dilation=dilation, padding=(kernel // 2) * dilation),
                nn.ReLU(),
                nn.GroupNorm(GROUPS, HIDDEN),
                nn.Dropout(dropout),
            ]
            channels = HIDDEN
        self.layers = nn.Sequential(*layers)
        pooled = 2 * HIDDEN + 3 * bands
        self.project = nn.Sequential(
            nn.BatchNorm1d(pooled, eps=eps, momentum=momentum),
            nn.Dropout(POOLED_DROPOUT),
            nn.Linear(pooled, embedding),
        )

    def forward(self, X_B1TF: Tensor) -> Tensor:
        """The embeddings of segments."""
        X_BTF = X_B1TF.squeeze(1)
        X_BFT = self.bands_norm((X_BTF - X_BTF.mean((1, 2), keepdim=True)).transpose(1, 2))
        maps_BMTF = self.maps(X_BFT.transpose(1, 2).unsqueeze(1))
        hidden_BHT = self.layers(maps_BMTF.transpose(2, 3).flatten(1, 2))
        step_BF = (X_BFT[..., 1:] - X_BFT[..., :-1]).abs().mean(-1)
        return self.project(torch.cat([_mean_and_std(hidden_BHT), _mean_and_std(X_BFT), step_BF], 1))


def _mean_and_std(X_BHT: Tensor) -> Tensor:
    """Mean and standard deviation over time, (B, 2 H)."""
    mean_BH = X_BHT.mean(-1)
    variance_BH = (X_BHT - mean_BH[..., None]).square().mean(-1)
    return torch.cat([mean_BH, variance_BH.clamp(min=MIN_VARIANCE).sqrt()], 1)
