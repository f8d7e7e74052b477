"""What decoding costs and how exact it is, format by format.

    python bench/bench_decode.py FOLDER [RECORDING …] [--model MODEL]

Makes one recording of 200 s in many formats in FOLDER (once), and takes real RECORDINGS of 120 s and more beside them.
Prints two tables:

1. CPU milliseconds in this process to open a file, find its length, decode and mix to mono, without resampling: for
   excerpts of 2 x 60 s and 32, 16, 8 and 4 segments of 3 s evenly spread, by PyAV as this project does it; and by
   libsndfile, which believes the header's length, where it decodes the format. The smallest of 5 interleaved repeats.
2. The duration found, and the log-mels (sampling `spread`, 32 segments) of each format against those of the wav file;
   with a MODEL, also the confidence of its artist tag less that of the wav file, and whether the label is another.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders.sound_files import EXACT_FORMATS, by_ffmpeg, encoded, song

from mtl_core import load_tagger
from mtl_core.audio.decoding.decode import open_sound
from mtl_core.audio.front_end import FrontEnd, log_mel_segments, read_recording
from mtl_core.audio.track_reader import Row

REPEATS = 5
COUNTS = (32, 16, 8, 4)
SPREAD = FrontEnd(sampling="spread", segments=32)
FORMATS: dict[str, Callable[[np.ndarray], bytes]] = EXACT_FORMATS | {
    "m4a, with PNS": lambda y: by_ffmpeg(y, "ipod", "aac"),
    # Opus files hold 48 kHz: they are made from the same sound, not from the same numbers
    "opus": lambda y: encoded(song(200, 48_000), "OGG", "OPUS", 48_000),
    "opus in webm": lambda y: by_ffmpeg(song(200, 48_000), "webm", "libopus", 48_000),
}


def stretches(n_frames: int, rate_hz: int) -> dict[str, list[tuple[int, int]]]:
    """What is decoded, by its name in the table: (first frame, number of frames)."""
    minute, segment = 60 * rate_hz, 3 * rate_hz
    asked = {"2 x 60 s": [(quarter * n_frames // 4 - minute // 2, minute) for quarter in (1, 3)]}
    for count in COUNTS:
        centres = [(2 * i + 1) * n_frames // (2 * count) for i in range(count)]
        asked[f"{count} x 3 s"] = [(centre - segment // 2, segment) for centre in centres]
    return asked


def by_pyav(data: bytes, places: list[tuple[int, int]]) -> None:
    sound = open_sound(io.BytesIO(data))
    for start, length in places:
        sound.read(start, length)
    sound.close()


def by_libsndfile(data: bytes, places: list[tuple[int, int]]) -> None:
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        weights = np.full(sound.channels, 1 / sound.channels, np.float32)
        for start, length in places:
            sound.seek(start)
            left = length
            while left > 0 and len(block := sound.read(min(left, 1 << 17), "float32", always_2d=True)):
                np.dot(block, weights)
                left -= len(block)


def cpu_ms(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return 1000 * (time.process_time() - began)


def libsndfile_decodes(data: bytes) -> bool:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            return sound.seekable()
    except soundfile.LibsndfileError:
        return False


def print_costs(files: dict[str, bytes]) -> None:
    names = list(stretches(1, 1))
    print("| PyAV, libsndfile | length | " + " | ".join(names) + " |\n| --- | --- |" + " --- |" * len(names))
    for name, data in files.items():
        with_libsndfile = libsndfile_decodes(data)
        sound = open_sound(io.BytesIO(data))
        asked = stretches(sound.n_frames, sound.rate_hz)
        runs: dict[str, Callable[[], None]] = {"length": lambda data=data: by_pyav(data, [])}
        for what, places in asked.items():
            runs[what] = lambda data=data, places=places: by_pyav(data, places)
            if with_libsndfile:
                runs[what + "*"] = lambda data=data, places=places: by_libsndfile(data, places)
        best = {what: min(times) for what, times in _interleaved(runs).items()}
        cells = [f"{best['length']:.1f}"]
        cells += [f"{best[what]:.0f}" + (f", {best[what + '*']:.0f}" if with_libsndfile else "") for what in asked]
        print(f"| {name}, {len(data) / 1e6:.1f} MB | " + " | ".join(cells) + " |", flush=True)


def _interleaved(runs: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(REPEATS):
        for what, run in runs.items():
            times[what].append(cpu_ms(run))
    return times


def print_differences(files: dict[str, bytes], tags: dict[str, Row]) -> None:
    heads = ["format", "duration in s", "largest, mean difference of the log-mels"]
    heads += ["difference of the artist's confidence"] if tags else []
    print("\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    expected = _mels(files["wav"])
    for name, data in files.items():
        sound = open_sound(io.BytesIO(data))
        difference = np.abs(_mels(data) - expected)
        seconds = sound.n_frames / sound.rate_hz
        cells = [name, f"{seconds:.3f}", f"{difference.max():.2g}, {difference.mean():.2g}"]
        cells += [_confidence_cell(tags[name], tags["wav"])] if tags else []
        print("| " + " | ".join(cells) + " |", flush=True)


def _confidence_cell(tag: Row, expected: Row) -> str:
    difference = tag["artist_confidence"] - expected["artist_confidence"]
    return f"{difference:+.3f}" + ("" if tag["artist"] == expected["artist"] else ", another artist")


def _mels(data: bytes) -> np.ndarray:
    return log_mel_segments(read_recording(io.BytesIO(data), SPREAD), SPREAD).mel_STF


def tag_files(model: str | None, paths: dict[str, Path]) -> dict[str, Row]:
    """The tags of the files by the name of their format; none without a model."""
    if model is None:
        return {}
    with load_tagger(model) as tagger:
        return dict(zip(paths, tagger.tag(paths.values()), strict=True))


def main(folder: Path, recordings: list[Path], model: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name.replace(" ", "_").replace(",", "") for name in FORMATS}
    samples = song(200)
    for name, encode in FORMATS.items():
        if not paths[name].exists():
            paths[name].write_bytes(encode(samples))
    made = {name: path.read_bytes() for name, path in paths.items()}
    print_costs(made | {path.name: path.read_bytes() for path in recordings})
    print_differences(made, tag_files(model, paths))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("recordings", type=Path, nargs="*")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.recordings, arguments.model)
