"""A decoder that returns three seconds of the same noise for every file.

A night with it measures everything but decoding.
"""

from typing import BinaryIO

import numpy as np

from mtl_core.audio.decode import SAMPLE_RATE_HZ, Excerpt, Recording
from mtl_core.audio.decoder_child import serve

NOISE = np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE_HZ).astype(np.float32) * np.float32(0.1)


def noise(file: BinaryIO) -> Recording:
    return Recording(excerpts=(Excerpt(samples=NOISE, start_s=0.0),), duration_s=3.0)


if __name__ == "__main__":
    serve(noise)
