"""A decoder that logs each track and misbehaves if the track says so.

`decoder="counting_decoder"` runs it as the decoder process. The first 8 bytes of a file select what it does. A file
that ends with `DIES_LATER` ends it when more is read than the segments of the first round.
"""

import io
import signal
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mtl_core.audio.decoding.decode import open_sound
from mtl_core.audio.decoding.decoder_child import serve
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.decoding.sound_file import Sound

DELAY_S = 0.1  # per track; long enough that a killed run has shards left
LOG = "decoded.log"  # beside the folder of the catalogue; one line for each decoding of a track
DIES_LATER = b"dies later"  # at the end of a file
_FIRST_ROUND = 4  # segments, see mtl_core.audio.segments.rounds


class DiesLater:
    """A sound that ends the process in the second round."""

    def __init__(self, sound: Sound) -> None:
        self.rate_hz, self.n_frames, self.close = sound.rate_hz, sound.n_frames, sound.close
        self._sound, self._n_reads = sound, 0

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        self._n_reads += 1
        if self._n_reads > _FIRST_ROUND:
            signal.raise_signal(signal.SIGSEGV)
        return self._sound.read(start, length)


def open_counted(file: BinaryIO, limits: SoundLimits) -> Sound:
    path = Path(f"/proc/self/fd/{file.fileno()}").readlink()
    with (path.parents[1] / LOG).open("a") as log:  # short writes in append mode do not mix
        log.write(path.name + "\n")
    time.sleep(DELAY_S)
    match file.read(8):
        case b"segfault":
            signal.raise_signal(signal.SIGSEGV)
        case b"hang    ":
            time.sleep(1000)
        case b"allocate":
            arrays = []
            while True:
                arrays.append(np.ones(1 << 24))
    file.seek(-len(DIES_LATER), io.SEEK_END)
    return DiesLater(open_sound(file, limits)) if file.read() == DIES_LATER else open_sound(file, limits)


if __name__ == "__main__":
    serve(open_counted, sandbox=False)  # it writes a log
