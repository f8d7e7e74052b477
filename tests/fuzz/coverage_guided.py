"""Coverage-guided fuzzing of what reads bytes in Python: `find_parts`, `find_sound` and `open_sound`, in one process.

atheris mutates bytes so that they reach new lines of `mtl_core.audio`; ffmpeg itself is not instrumented. It is not
among the project's requirements, because it has wheels for few platforms. To run it for ten minutes, with a folder of
short files to begin with (it writes them if the folder is empty), to which files that reach new lines are added:

    .venv/bin/pip install atheris
    PYTHONPATH=tests .venv/bin/python -m fuzz.coverage_guided build/fuzz-corpus -max_total_time=600 -max_len=30000

An exception ends it with a stack trace, and the bytes are written to a file `crash-...`, which it runs again where that
is its argument. Exceptions that are allowed: TrackError, and MemoryError, which is named `out_of_memory`.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import atheris
from builders.sound_files import EXACT_FORMATS, song

with atheris.instrument_imports(include=["mtl_core.audio"]):
    from mtl_core.audio.decoding.byte_view import ByteView
    from mtl_core.audio.decoding.containers import find_parts, find_sound
    from mtl_core.audio.decoding.decode import Stretches, open_sound, read_stretches
    from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
    from mtl_core.errors import TrackError

LIMITS = SoundLimits(max_duration_s=600)


def run(data: bytes) -> None:
    """Find the parts of some bytes, open them, and read their last second."""
    view = ByteView(io.BytesIO(data))
    parts = find_parts(view)
    n_bytes = sum(len(part.view) for part in parts)
    assert n_bytes == len(data) or (data.startswith((b"ID3", b"APETAGEX", b"RIFX")) and n_bytes < len(data))
    find_sound(view)
    with contextlib.suppress(TrackError, MemoryError):
        sound = open_sound(io.BytesIO(data), LIMITS)
        with contextlib.closing(sound):
            length = min(sound.n_frames, sound.rate_hz)
            samples, lost = sound.read(sound.n_frames - length, length)
            assert len(samples) == length and 0 <= lost <= length
            n_samples = length * 16_000 // sound.rate_hz
            read_stretches(sound, Stretches(places=[(0, n_samples)], are_excerpts=False))


def main() -> None:
    """Run atheris with its own arguments; see the module's text."""
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders and not folders[0].is_file() and not any(folders[0].glob("*")):
        folders[0].mkdir(parents=True, exist_ok=True)
        for name, encode in EXACT_FORMATS.items():
            (folders[0] / re.sub(r"[^a-z0-9]+", "-", name)).write_bytes(encode(song(0.25)))
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
