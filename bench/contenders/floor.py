"""The cost below which no tagger can get: floor.py FOLDER OUT, one process, one thread.

Decodes the excerpts, mixes them to mono, resamples them with soxr HQ, and multiplies float32 matrices with as many
operations as the paper's network has.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

FLOP_PER_SEGMENT = 12.4e9 / 40
SIZE = 2048


def excerpts(path: Path) -> list[np.ndarray]:
    with soundfile.SoundFile(path) as sound:
        rate, n = sound.samplerate, sound.frames
        spans = [(0, n)]
        if n >= 120 * rate:
            starts = [min(max(0, int(c * n) - 30 * rate), n - 60 * rate) for c in (0.25, 0.75)]
            spans = [(start, 60 * rate) for start in starts]
        resampled = []
        for start, length in spans:
            sound.seek(start)
            stereo = sound.read(length, dtype="float32", always_2d=True)
            mono = stereo @ np.full(stereo.shape[1], 1 / stereo.shape[1], np.float32)
            resampled.append(soxr.resample(mono, rate, 16_000, "HQ"))
    return resampled


if __name__ == "__main__":
    matrix = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
    out = np.empty_like(matrix)
    flop_left = 0.0
    for path in sorted(Path(sys.argv[1]).iterdir()):
        flop_left += sum(len(excerpt) // 48_000 for excerpt in excerpts(path)) * FLOP_PER_SEGMENT
        rows = min(SIZE, int(flop_left / (2 * SIZE**2)))
        while rows:
            np.matmul(matrix[:rows], matrix, out=out[:rows])
            flop_left -= rows * 2 * SIZE**2
            rows = min(SIZE, int(flop_left / (2 * SIZE**2)))
    Path(sys.argv[2]).touch()
