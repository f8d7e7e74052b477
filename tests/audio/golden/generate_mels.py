"""Writes mels.npz, the reference of test_mel.py, with librosa: python tests/audio/golden/generate_mels.py

Every eleventh frame of each signal's mel spectrum, in float32, compressed as SPEC'd: log10(10000 x + 1).
"""

from pathlib import Path

import librosa
import numpy as np

SEGMENT_SAMPLES, SAMPLE_RATE_HZ, FRAME_STEP = 48_000, 16_000, 11
PATH = Path(__file__).with_name("mels.npz")


def signals() -> dict[str, np.ndarray]:
    """Segments (48000,) float32 by name, the same on every machine."""
    time_s = np.arange(SEGMENT_SAMPLES) / SAMPLE_RATE_HZ
    noise = np.random.Generator(np.random.PCG64(0)).random(SEGMENT_SAMPLES) * 2 - 1
    impulses = np.zeros(SEGMENT_SAMPLES)
    impulses[::4000] = 1
    made = {
        "silence": np.zeros(SEGMENT_SAMPLES),
        "noise": noise,
        "quiet_noise": noise * 1e-4,
        "tone": np.sin(2 * np.pi * 440 * time_s),
        "sweep": np.sin(2 * np.pi * (50 + 1300 * time_s) * time_s),
        "square": np.where(np.arange(SEGMENT_SAMPLES) // 40 % 2, 1.0, -1.0),
        "impulses": impulses,
    }
    return {name: signal.astype(np.float32) for name, signal in made.items()}


def reference(segment: np.ndarray) -> np.ndarray:
    """(187, 96) float32 of a segment (48000,) by librosa."""
    power = librosa.feature.melspectrogram(
        y=segment, sr=SAMPLE_RATE_HZ, n_fft=512, hop_length=256, n_mels=96, fmin=0.0, fmax=8000.0
    )
    return np.log10(10_000 * power + 1).T[:187]


if __name__ == "__main__":
    np.savez_compressed(PATH, **{name: reference(signal)[::FRAME_STEP] for name, signal in signals().items()})
