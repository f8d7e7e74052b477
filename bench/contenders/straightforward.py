"""What a user writes from the documentation of librosa and torch: the functions of the other contenders.

The segments are this project's. `librosa.load` decodes and resamples whole files. `librosa.feature.melspectrogram`
makes the mels of one segment at a time. The network is eager torch on one thread.
"""

import io

import librosa
import numpy as np
import torch
from torch import nn

RATE_HZ, SEGMENT = 16_000, 48_000


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.BatchNorm2d(outputs), nn.MaxPool2d(2), nn.Dropout(0.25)
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = [1, 32, 64, 128, 64, 32]
        self.trunk = nn.Sequential(*map(block, channels, channels[1:]), nn.Flatten())
        self.artist, self.language = nn.Linear(96, 68), nn.Linear(96, 17)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.trunk(x)
        return self.artist(h), self.language(h)


def excerpts(y: np.ndarray) -> list[np.ndarray]:
    if len(y) < 120 * RATE_HZ:
        return [y]
    starts = [min(max(0, int(c * len(y)) - 30 * RATE_HZ), len(y) - 60 * RATE_HZ) for c in (0.25, 0.75)]
    return [y[start : start + 60 * RATE_HZ] for start in starts]


def mels(data: bytes) -> np.ndarray:
    y, _ = librosa.load(io.BytesIO(data), sr=RATE_HZ)
    spectra = [
        librosa.feature.melspectrogram(y=e[s : s + SEGMENT], sr=RATE_HZ, n_fft=512, hop_length=256, n_mels=96)
        for e in excerpts(y)
        for s in range(0, len(e) - SEGMENT + 1, SEGMENT)
    ]
    return np.stack([np.log10(1e4 * spectrum + 1).T[:187] for spectrum in spectra])


class Tagger:
    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.net = Net().eval()

    def tag(self, data: bytes) -> tuple[int, int]:
        with torch.inference_mode():
            artist, language = self.net(torch.from_numpy(mels(data))[:, None])
        return int(artist.softmax(1).mean(0).argmax()), int(language.softmax(1).mean(0).argmax())
