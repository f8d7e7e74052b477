"""A deployment's own decoder: it decodes a format of its own, `OWN ` and 4 s of 16-bit samples, beside all others.

`decoder="builders.own_decoder"` runs this module as the decoder process.
"""

import io

import numpy as np
import soundfile

from mtl_core.audio.decode import Recording, read_recording
from mtl_core.audio.decoder_child import serve

MAGIC = b"OWN "
RATE_HZ = 16_000


def encode(samples_N: np.ndarray) -> bytes:
    return MAGIC + (32_767 * samples_N).astype("<i2").tobytes()


def read(file: io.BufferedReader) -> Recording:
    content = file.read()
    file.seek(0)
    if not content.startswith(MAGIC):
        return read_recording(file)
    wav = io.BytesIO()
    soundfile.write(wav, np.frombuffer(content[len(MAGIC) :], "<i2"), RATE_HZ, format="WAV")
    return read_recording(wav)


if __name__ == "__main__":
    serve(read)  # type: ignore[arg-type]
