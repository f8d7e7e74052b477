"""A small catalogue of tones in four formats, with files that cannot be tagged."""

import io

import numpy as np
import soundfile

from mtl_core.storage.location import Location

#: track_id of each file that cannot be tagged -> (stage, error) of its failure.
BAD = {
    "bad/empty.wav": ("decode", "not_audio"),
    "bad/short.wav": ("decode", "too_short"),
    "bad/text.mp3": ("decode", "not_audio"),
    "bad/nan.wav": ("features", "not_finite"),
}
FORMATS = (("wav", 44_100, 2), ("flac", 22_050, 1), ("ogg", 48_000, 2), ("mp3", 32_000, 1))


def write_catalogue(root: Location, n_good: int, seconds: float = 4.0) -> None:
    """Write `n_good` tones with noise, the files of `BAD`, and a labels.csv that labels every second good file."""
    rng = np.random.default_rng(7)
    lines = ["path,artist,language,album,mood"]
    for number in range(n_good):
        extension, rate_hz, channels = FORMATS[number % 4]
        time_s = np.arange(int(seconds * rate_hz))[:, None] / rate_hz
        tone_N1 = 0.3 * np.sin(2 * np.pi * (110 + 13 * number) * time_s)
        noise_NC = 0.02 * rng.standard_normal((len(time_s), channels))
        write_audio(root / "good" / f"{number:03}.{extension}", tone_N1 + noise_NC, rate_hz)
        if number % 2:
            lines.append(f"good/{number:03}.{extension},artist {number % 3},l{number % 2},,calm")
    write_audio(root / "bad" / "short.wav", np.zeros((100, 1)), 16_000)
    write_audio(root / "bad" / "nan.wav", np.full((32_000, 1), np.nan), 16_000, subtype="FLOAT")
    (root / "bad" / "empty.wav").write_bytes(b"")
    (root / "bad" / "text.mp3").write_bytes(b"these are words, not music " * 100)
    (root / "labels.csv").write_bytes("\n".join(lines).encode())


def write_audio(file: Location, samples_NC: np.ndarray, rate_hz: int, subtype: str | None = None) -> None:
    """Write samples (N, C) as an audio file; its extension is its format."""
    buffer = io.BytesIO()
    extension = file.name.rpartition(".")[2]
    with soundfile.SoundFile(buffer, "w", rate_hz, samples_NC.shape[1], format=extension, subtype=subtype) as sound:
        for start in range(0, len(samples_NC), 20_000):  # libsndfile can crash on a long Vorbis write
            sound.write(samples_NC[start : start + 20_000])
    file.write_bytes(buffer.getvalue())
