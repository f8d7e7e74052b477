"""The voice has the pitch, the formants and the silences of its syllables."""

from dataclasses import replace

import numpy as np
import pytest

from mtl_core.dataset.synthetic.voice import NASAL, RATE_HZ, Singer, Syllables, sing

SINGER = Singer(register_hz=150, tract_scale=1, tilt_db=8, breath=0, vibrato_hz=5, vibrato_semitones=0, ring_db=0)


def _syllables(pitch_midi: float, vowel_hz: tuple[float, float, float]) -> Syllables:
    return Syllables(
        start_s=np.array([0.0, 2.0]),
        duration_s=np.array([1.0, 1.0]),
        pitch_midi=np.full(2, pitch_midi),
        glide_semitones=np.zeros(2),
        stress=np.ones(2),
        vowel_hz=np.array([vowel_hz] * 2, float),
        onset=np.full(2, NASAL),
        onset_s=np.full(2, 0.01),
        noise_hz=np.full(2, 4000.0),
    )


def _spectrum(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.rfftfreq(len(y), 1 / RATE_HZ), np.abs(np.fft.rfft(y * np.hanning(len(y)))) ** 2


@pytest.mark.parametrize("pitch_midi", [45, 57, 69])
def test_the_pitch_is_that_of_the_note(pitch_midi):
    y = sing(_syllables(pitch_midi, (500, 1500, 2500)), SINGER, 3 * RATE_HZ, np.random.default_rng(0))
    steady = y[RATE_HZ // 4 : 3 * RATE_HZ // 4]
    lag = np.correlate(steady, steady, "full")[len(steady) - 1 :]
    shortest = RATE_HZ // 700
    period = shortest + int(np.argmax(lag[shortest : RATE_HZ // 60]))
    expected = RATE_HZ / (440 * 2 ** ((pitch_midi - 69) / 12))
    assert period == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("tract_scale", [0.85, 1.0, 1.2])
@pytest.mark.parametrize(
    ("high_hz", "low_hz"), [((700, 1500, 2500), (300, 1500, 2500)), ((500, 2200, 3000), (500, 900, 3000))]
)
def test_formants_are_those_of_the_vowel_scaled_by_the_tract(high_hz, low_hz, tract_scale):
    differs = int(np.argmax(np.array(high_hz) != np.array(low_hz)))
    ratio = []
    for formants_hz in (high_hz, low_hz):
        singer = replace(SINGER, tract_scale=tract_scale)
        y = sing(_syllables(40, formants_hz), singer, 3 * RATE_HZ, np.random.default_rng(0))
        f, power = _spectrum(y[RATE_HZ // 4 : 3 * RATE_HZ // 4])
        high, low = (power[np.abs(f - v[differs] * tract_scale) < 120].sum() for v in (high_hz, low_hz))
        ratio.append(high / low)
    assert ratio[0] > 20 * ratio[1]


def test_there_is_silence_between_syllables():
    y = sing(_syllables(57, (500, 1500, 2500)), SINGER, 3 * RATE_HZ, np.random.default_rng(0))
    loud = np.sqrt(np.mean(y[:RATE_HZ] ** 2))
    assert np.abs(y[int(1.2 * RATE_HZ) : int(1.8 * RATE_HZ)]).max() < 1e-4 * loud
    assert np.isfinite(y).all() and y.dtype == np.float32 and len(y) == 3 * RATE_HZ


def test_a_softer_voice_has_less_energy_above_2_khz():
    def above_2khz(tilt_db: float) -> float:
        singer = replace(SINGER, tilt_db=tilt_db)
        f, power = _spectrum(sing(_syllables(50, (500, 1500, 2500)), singer, 2 * RATE_HZ, np.random.default_rng(0)))
        return float(power[f > 2000].sum() / power.sum())

    assert above_2khz(6) > 4 * above_2khz(12)
