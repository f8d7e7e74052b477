"""A deployment's own decoder: it decodes a format of its own, `OWN ` and 4 s of 16-bit samples, beside all others.

`decoder="builders.own_decoder"` runs this module as the decoder process.
"""

from typing import BinaryIO

import numpy as np

from mtl_core.audio.decoding.decode import open_sound
from mtl_core.audio.decoding.decoder_child import serve
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.decoding.sound_file import Sound

MAGIC = b"OWN "
RATE_HZ = 16_000


class OwnSound:
    def __init__(self, content: bytes) -> None:
        self.samples_N = np.frombuffer(content[len(MAGIC) :], "<i2").astype(np.float32) / 32_768
        self.rate_hz, self.n_frames = RATE_HZ, len(self.samples_N)

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        return self.samples_N[start : start + length], 0

    def close(self) -> None:
        pass


def encode(samples_N: np.ndarray) -> bytes:
    return MAGIC + (32_767 * samples_N).astype("<i2").tobytes()


def open_own(file: BinaryIO, limits: SoundLimits) -> Sound:
    content = file.read()
    return OwnSound(content) if content.startswith(MAGIC) else open_sound(file, limits)


if __name__ == "__main__":
    serve(open_own)
