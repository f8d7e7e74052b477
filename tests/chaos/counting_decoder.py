"""A decoder that notes each track it is given in a file beside the catalogue, and misbehaves where a track asks for it.

`Tagging(decoder="counting_decoder")` runs it as the decoders' process; the first bytes of a file say what to do.
"""

import io
import os
import signal
import time
from pathlib import Path

import numpy as np

from mtl_core.audio.decode import Recording, read_recording
from mtl_core.audio.decoder_child import serve

DELAY_S = 0.1  # a track's: long enough that a killed run has shards left
LOG = "decoded.log"  # beside the catalogue's folder: a line for each time that a track was decoded


def read(file: io.BufferedReader) -> Recording:
    path = Path(f"/proc/self/fd/{file.fileno()}").readlink()
    with (path.parents[1] / LOG).open("a") as log:  # one short write in append mode: lines never mix
        log.write(path.name + "\n")
    time.sleep(DELAY_S)
    match file.read(8):
        case b"segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"hang    ":
            time.sleep(1000)
        case b"allocate":
            eaten = []
            while True:
                eaten.append(np.ones(1 << 24))
    file.seek(0)
    return read_recording(file)


if __name__ == "__main__":
    serve(read)  # type: ignore[arg-type]
