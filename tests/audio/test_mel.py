"""The mel spectrum is librosa's, and obeys the physics of tones, clicks, silence and noise."""

import sys
from pathlib import Path

import librosa
import numpy as np
import pytest

from mtl_core.audio.filter_bank import default_filter_bank, make_filter_bank
from mtl_core.audio.front_end import FrontEnd, read_recording
from mtl_core.audio.mel import MelConfig, log_mel
from mtl_core.audio.segments import segment_starts, slice_segments

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
import generate_mels  # noqa: E402  a script beside this file

CONFIG = MelConfig()
FILTER_BANK_FK = default_filter_bank(CONFIG)
TIME_S = np.arange(48_000) / CONFIG.sample_rate_hz


def mel_of(segment: np.ndarray) -> np.ndarray:
    return log_mel(segment[None].astype(np.float32), CONFIG, FILTER_BANK_FK)[0]


def power_of(segment: np.ndarray) -> np.ndarray:
    return (10.0 ** mel_of(segment).astype(np.float64) - 1) / CONFIG.compression_factor


@pytest.mark.parametrize("name", generate_mels.signals())
def test_mels_equal_the_golden_mels(name: str) -> None:
    with np.load(generate_mels.PATH) as golden:
        mels = mel_of(generate_mels.signals()[name])[:: generate_mels.FRAME_STEP]
        np.testing.assert_allclose(mels, golden[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", generate_mels.signals())
def test_mels_equal_those_of_librosa(name: str) -> None:
    segment = generate_mels.signals()[name]
    np.testing.assert_allclose(mel_of(segment), generate_mels.reference(segment), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "path",
    [
        "songs/ultrastar/Jonathan Coulton - A Talk with George.mp3",
        "songs/ultrastar/Jonathan Coulton - Code Monkey.ogg",
        "gtsinger/fr01_Control-CblF6VHE.flac",
    ],
)
def test_mels_of_real_recordings_equal_those_of_librosa(path: str, audio: Path) -> None:
    with (audio / path).open("rb") as file:
        excerpt = read_recording(file, FrontEnd()).excerpts[-1].samples
    segments_SN = slice_segments(excerpt, segment_starts(len(excerpt), 20))
    expected = np.stack([generate_mels.reference(segment) for segment in segments_SN])
    np.testing.assert_allclose(log_mel(segments_SN, CONFIG, FILTER_BANK_FK), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", [MelConfig(n_fft=1024, hop_samples=300, frames=161), MelConfig(frames=188)])
def test_a_frame_that_reaches_beyond_the_segment_is_padded_with_zeros(config: MelConfig) -> None:
    segment = generate_mels.signals()["noise"]
    power = librosa.feature.melspectrogram(
        y=segment, sr=16_000, n_fft=config.n_fft, hop_length=config.hop_samples, n_mels=96, fmin=0, fmax=8000
    )
    mels = log_mel(segment[None], config, make_filter_bank(config))[0]
    np.testing.assert_allclose(mels, np.log10(10_000 * power + 1).T, rtol=0, atol=1e-4)


def test_silence_is_zero_and_the_shape_is_that_of_the_network() -> None:
    X_STF = log_mel(np.zeros((3, 48_000), np.float32), CONFIG, FILTER_BANK_FK)
    assert X_STF.shape == (3, 187, 96) and X_STF.dtype == np.float32
    assert not X_STF.any()
    assert log_mel(np.zeros((0, 48_000), np.float32), CONFIG, FILTER_BANK_FK).shape == (0, 187, 96)


@pytest.mark.parametrize("frequency_hz", [200, 440, 1000, 3000, 7000])
def test_a_tone_is_loudest_in_its_band(frequency_hz: int) -> None:
    centres_hz = librosa.mel_frequencies(98, fmin=0, fmax=8000)[1:-1]
    loudest = mel_of(np.sin(2 * np.pi * frequency_hz * TIME_S))[10:-10].argmax(axis=1)
    nearest = np.abs(centres_hz - frequency_hz).argmin()
    assert (np.abs(loudest - nearest) <= 1).all()


def test_twice_the_amplitude_is_four_times_the_power() -> None:
    tone = np.sin(2 * np.pi * 1000 * TIME_S)
    loud, quiet = power_of(tone)[5:-5], power_of(tone / 2)[5:-5]
    band = loud.sum(axis=0).argmax()
    np.testing.assert_allclose(loud[:, band] / quiet[:, band], 4, rtol=1e-3)


def test_the_power_of_white_noise_is_that_of_parseval() -> None:
    """A bin's expected power is variance x sum(window^2), and a band has 2 / (width in Hz) x triangle over the bins."""
    noise = np.random.default_rng(0).standard_normal((8, 48_000)).astype(np.float32) * 0.1
    X_STF = log_mel(noise, CONFIG, FILTER_BANK_FK).astype(np.float64)
    power_F = ((10**X_STF - 1) / 10_000)[:, 1:].mean(axis=(0, 1))
    expected_F = 0.01 * (3 / 8 * 512) * FILTER_BANK_FK.sum(axis=1)
    np.testing.assert_allclose(power_F, expected_F, rtol=0.1)


def test_a_click_is_only_in_the_frames_around_it() -> None:
    click = np.zeros(48_000)
    click[100 * 256] = 1
    is_loud = mel_of(click).any(axis=1)
    assert is_loud[100] and not is_loud[:99].any() and not is_loud[102:].any()


def test_segments_do_not_change_each_other() -> None:
    segments_SN = np.random.default_rng(0).uniform(-1, 1, (5, 48_000)).astype(np.float32)
    together = log_mel(segments_SN, CONFIG, FILTER_BANK_FK)
    for segment, X_TF in zip(segments_SN, together, strict=True):
        np.testing.assert_allclose(mel_of(segment), X_TF, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"n_fft": 511}, {"bands": 0}, {"fmax_hz": 9000.0}, {"fmin_hz": -1.0}, {"compression_factor": 0.0}]
)
def test_the_error_names_a_wrong_parameter(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MelConfig(**wrong)  # type: ignore[arg-type]


def test_segments_that_are_too_short_raise() -> None:
    with pytest.raises(ValueError, match="187"):
        log_mel(np.zeros((1, 16_000), np.float32), CONFIG, FILTER_BANK_FK)
