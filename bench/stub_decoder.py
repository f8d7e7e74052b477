"""A decoder that hears three seconds of the same noise in every file: what is left of a night is the project's own."""

from typing import BinaryIO

import numpy as np

from mtl_core.audio.decode import SAMPLE_RATE_HZ, Excerpt, Recording
from mtl_core.audio.decoder_child import serve

NOISE = np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE_HZ).astype(np.float32) * np.float32(0.1)


def hear(file: BinaryIO) -> Recording:
    return Recording(excerpts=(Excerpt(samples=NOISE, start_s=0.0),), duration_s=3.0)


if __name__ == "__main__":
    serve(hear)
