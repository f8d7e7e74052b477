"""A decoder that gives noise of one length for every file.

A night with it measures everything but decoding.
"""

from typing import BinaryIO

import numpy as np

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ
from mtl_core.audio.decoding.decoder_child import serve
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits


class Noise:
    """Three seconds of the same noise."""

    rate_hz = SAMPLE_RATE_HZ
    n_frames = 3 * SAMPLE_RATE_HZ
    samples = np.random.default_rng(0).standard_normal(n_frames).astype(np.float32) * np.float32(0.1)

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        return self.samples[start : start + length], 0

    def close(self) -> None:
        pass


def noise(file: BinaryIO, limits: SoundLimits) -> Noise:
    return Noise()


if __name__ == "__main__":
    serve(noise)
