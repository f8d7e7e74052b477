"""Compare the front end with librosa on the same tracks in one run: python bench/bench_front_end.py [FOLDER]

It prints CPU milliseconds a track of this process and its child, single-threaded. The contenders take turns; figures
are medians over tracks and repeats.

The tracks are up to 6 mp3, ogg and flac files of 120 s or more in FOLDER (default: the real songs beside the checkout),
or generated ones. The largest difference from librosa's mels after the log is printed, too.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ, Recording
from mtl_core.audio.decoding.decoder_process import Decoder
from mtl_core.audio.front_end import FrontEnd, log_mel_segments, read_recording
from mtl_core.audio.segments import SEGMENT_SAMPLES

REPEATS, MAX_TRACKS = 3, 6
FRONT_END = FrontEnd()
SONGS = Path(__file__).parents[1].parent / "shared" / "audio" / "songs"


def long_tracks(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".mp3", ".ogg", ".flac"))
    paths = [path for path in paths if soundfile.info(path).duration >= 120]
    return paths[:: -(-len(paths) // MAX_TRACKS) or 1]


def generated_tracks(folder: Path) -> list[Path]:
    time_s = np.arange(180 * 44_100) / 44_100
    noise = np.random.default_rng(0).standard_normal((len(time_s), 2)) * 0.05
    samples = (noise + 0.3 * np.sin(2 * np.pi * (200 + 5 * time_s) * time_s)[:, None]).astype(np.float32)
    paths = [folder / f"generated.{suffix}" for suffix in ("mp3", "ogg", "flac")]
    for path in paths:
        with soundfile.SoundFile(path, "w", 44_100, 2) as sound:
            for start in range(0, len(samples), 1 << 16):
                sound.write(samples[start : start + (1 << 16)])
    return paths


def librosa_mel(segment: np.ndarray) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=segment, sr=SAMPLE_RATE_HZ, n_fft=512, hop_length=256, n_mels=96, fmin=0.0, fmax=8000.0
    )
    return np.log10(10_000 * power + 1).T[:187]


def librosa_mels(recording: Recording) -> np.ndarray:
    segments = [segment for excerpt in recording.excerpts for segment in excerpt.samples.reshape(-1, SEGMENT_SAMPLES)]
    return np.stack([librosa_mel(segment) for segment in segments])


def read_through(decoder: Decoder, source: bytes | str) -> Recording:
    rate_hz, n_frames = decoder.open(source)
    return decoder.read(FRONT_END.stretches(n_frames, rate_hz))


def cpu_ms(work: Callable[[], object], child: int | None = None) -> tuple[float, object]:
    """CPU milliseconds of this process and of the child process, and the result of the work."""

    def now_s() -> float:
        stat = Path(f"/proc/{child}/schedstat").read_text() if child else "0"
        return time.process_time() + int(stat.split()[0]) / 1e9

    began_s = now_s()
    result = work()
    return 1e3 * (now_s() - began_s), result


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, Decoder() as decoder:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SONGS
        paths = (long_tracks(folder) if folder.is_dir() else []) or generated_tracks(Path(scratch))
        read_through(decoder, str(paths[0]))
        child = decoder._process.pid if decoder._process else None
        librosa_mel(np.zeros(SEGMENT_SAMPLES, np.float32))
        times: dict[str, list[float]] = {}
        differences: dict[str, float] = {}
        for _ in range(REPEATS):
            for path in paths:
                data = path.read_bytes()
                recording = read_recording(io.BytesIO(data), FRONT_END)
                contenders: dict[str, Callable[[], object]] = {
                    "read: librosa.load, whole file": lambda data=data: librosa.load(
                        io.BytesIO(data), sr=SAMPLE_RATE_HZ
                    ),
                    "read: read_recording": lambda data=data: read_recording(io.BytesIO(data), FRONT_END),
                    "read: Decoder, bytes": lambda data=data: read_through(decoder, data),
                    "read: Decoder, path": lambda path=path: read_through(decoder, str(path)),
                    "mel: librosa, each segment": lambda recording=recording: librosa_mels(recording),
                    "mel: log_mel_segments": lambda recording=recording: log_mel_segments(recording, FRONT_END).mel_STF,
                }
                results = {}
                for name, work in contenders.items():
                    ms, results[name] = cpu_ms(work, child)
                    times.setdefault(name, []).append(ms)
                difference = np.abs(results["mel: librosa, each segment"] - results["mel: log_mel_segments"]).max()
                differences[path.name] = float(difference)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        print(f"{len(paths)} tracks, {REPEATS} repeats, CPU ms a track: median (lowest to highest)")
        for name, values in times.items():
            print(f"  {name:32s}{medians[name]:8.1f}   ({min(values):.1f} to {max(values):.1f})")
        print("ratios")
        for name, slower, faster in (
            ("librosa / ours, reading", "read: librosa.load, whole file", "read: read_recording"),
            ("through the child / in process", "read: Decoder, bytes", "read: read_recording"),
            ("librosa / ours, mels", "mel: librosa, each segment", "mel: log_mel_segments"),
        ):
            print(f"  {medians[slower] / medians[faster]:.2f} {name}")
        print("largest difference from librosa after the log")
        for name, difference in differences.items():
            print(f"  {difference:.1e}  {name}")


if __name__ == "__main__":
    main()
