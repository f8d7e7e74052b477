"""What a user writes from the documentation of librosa and torch: the functions of the other contenders.

The segments are this project's. `librosa.load` decodes and resamples whole files. `librosa.feature.melspectrogram`
makes the mels of one segment at a time. The network is that of the model, in eager torch on one thread.
"""

import io

import librosa
import numpy as np
import soundfile
import torch

from mtl_core.inference.artifacts.artifact import load_artifact
from mtl_core.storage.location import Location

RATE_HZ, SEGMENT = 16_000, 48_000


def excerpts(y: np.ndarray) -> list[np.ndarray]:
    if len(y) < 120 * RATE_HZ:
        return [y]
    starts = [min(max(0, int(c * len(y)) - 30 * RATE_HZ), len(y) - 60 * RATE_HZ) for c in (0.25, 0.75)]
    return [y[start : start + 60 * RATE_HZ] for start in starts]


def mels(data: bytes, n_segments: int) -> np.ndarray:
    """Of the whole file's segments, or of so many, evenly spread, each decoded on its own."""
    if n_segments:
        length_s = SEGMENT / RATE_HZ
        duration_s = soundfile.info(io.BytesIO(data)).duration
        starts_s = [(i + 0.5) * duration_s / n_segments - length_s / 2 for i in range(n_segments)]
        segments = [
            librosa.load(io.BytesIO(data), sr=RATE_HZ, offset=max(0, s), duration=length_s + 0.1)[0][:SEGMENT]
            for s in starts_s
        ]
    else:
        y, _ = librosa.load(io.BytesIO(data), sr=RATE_HZ)
        segments = [e[s : s + SEGMENT] for e in excerpts(y) for s in range(0, len(e) - SEGMENT + 1, SEGMENT)]
    spectra = [
        librosa.feature.melspectrogram(y=segment, sr=RATE_HZ, n_fft=512, hop_length=256, n_mels=96)
        for segment in segments
    ]
    return np.stack([np.log10(1e4 * spectrum + 1).T[:187] for spectrum in spectra])


class Tagger:
    """`model` is the folder of a model; `n_segments` as of `mels`, 0: the whole file's."""

    def __init__(self, model: str, n_segments: int) -> None:
        torch.set_num_threads(1)
        self.net, self.n_segments = load_artifact(Location(model)).model.eval(), n_segments

    def tag(self, data: bytes) -> tuple[int, int]:
        with torch.inference_mode():
            logits = self.net(torch.from_numpy(mels(data, self.n_segments))[:, None])
        artist, language = (int(logits[task].softmax(1).mean(0).argmax()) for task in ("artist", "language"))
        return artist, language
