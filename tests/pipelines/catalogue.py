"""A small catalogue with its bad apples, and a model that was never trained: what the pipelines' tests work on."""

import io

import numpy as np
import pyarrow as pa
import soundfile
import torch

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference import artifact
from mtl_core.inference.artifact import Artifact
from mtl_core.model.cnn import ModelConfig, MultitaskCNN
from mtl_core.storage.location import Location

#: track -> (stage, error) of the bad ones.
BAD = {
    "bad/empty.wav": ("decode", "not_audio"),
    "bad/short.wav": ("decode", "too_short"),
    "bad/text.mp3": ("decode", "not_audio"),
    "bad/nan.wav": ("features", "not_finite"),
}


def write_catalogue(root: Location, n_good: int, seconds: float = 4.0) -> None:
    """`n_good` tones and noises in four formats, the bad ones, and labels for half of them."""
    rng = np.random.default_rng(7)
    formats = (("wav", 44_100, 2), ("flac", 22_050, 1), ("ogg", 48_000, 2), ("mp3", 32_000, 1))
    lines = ["path,artist,language,album,mood"]
    for number in range(n_good):
        kind, rate_hz, channels = formats[number % 4]
        t = np.arange(int(seconds * rate_hz))[:, None] / rate_hz
        tone = 0.3 * np.sin(2 * np.pi * (110 + 13 * number) * t) + 0.02 * rng.standard_normal((len(t), channels))
        write(root / "good" / f"{number:03}.{kind}", tone, rate_hz, kind)
        if number % 2:
            lines.append(f"good/{number:03}.{kind},artist {number % 3},l{number % 2},,calm")
    write(root / "bad" / "short.wav", np.zeros((100, 1)), 16_000, "wav")
    write(root / "bad" / "nan.wav", np.full((32_000, 1), np.nan), 16_000, "wav", subtype="FLOAT")
    (root / "bad" / "empty.wav").write_bytes(b"")
    (root / "bad" / "text.mp3").write_bytes(b"these are words, not music " * 100)
    (root / "labels.csv").write_bytes("\n".join(lines).encode())


def write(at: Location, samples: np.ndarray, rate_hz: int, kind: str, subtype: str | None = None) -> None:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, samples.shape[1], format=kind, subtype=subtype) as sound:
        for start in range(0, len(samples), 20_000):  # libsndfile can crash on a long Vorbis write
            sound.write(samples[start : start + 20_000])
    at.write_bytes(buffer.getvalue())


def untrained_artifact() -> Artifact:
    """Random weights, 7 artists and 3 languages."""
    torch.manual_seed(0)
    model = MultitaskCNN(ModelConfig(classes={"artist": 7, "language": 3}))
    vocabularies = {"artist": Vocabulary(tuple("abcdefg")), "language": Vocabulary(("de", "en", "fr"))}
    return Artifact(model=model, front_end=FrontEnd(), vocabularies=vocabularies)


def save(model: Artifact, at: Location) -> Location:
    no_splits = pa.table({"track_id": pa.array([], pa.string()), "split": pa.array([], pa.string())})
    artifact.save_artifact(model, no_splits, at)
    return at
