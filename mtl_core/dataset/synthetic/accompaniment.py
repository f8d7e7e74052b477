"""Accompaniment: makes the sound of notes and of a drum pattern; each artist has instruments of its own.

Legend: N samples at `voice.RATE_HZ`, C channels (2: left, right), M notes.
"""

from dataclasses import dataclass

import numpy as np

from mtl_core.dataset.synthetic.voice import RATE_HZ

_TABLE = 2048


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """The sound of an artist's instruments."""

    decay_s: float  # decay of the chord instrument; 0.15 is a pluck, 3 a pad
    rolloff: float  # harmonic h has the amplitude h^-rolloff
    even: float  # amplitude of even harmonics relative to odd ones, 0 (a clarinet) to 1
    body_hz: float  # resonance frequency of the instrument
    octave: int  # transposition of the chords in octaves
    hat_hz: float  # centre frequency of the hat's noise


@dataclass(frozen=True, kw_only=True)
class Notes:
    """The M notes of the chord instrument; every array is (M,)."""

    start_s: np.ndarray
    duration_s: np.ndarray
    pitch_midi: np.ndarray  # MIDI note numbers, before `Instruments.octave`
    pan: np.ndarray  # 0 is left, 1 is right


def play(notes: Notes, instruments: Instruments, n_samples: int) -> np.ndarray:
    """The sound of the chord instrument, (2, N) float32."""
    out = np.zeros((2, n_samples), np.float32)
    table_by_pitch: dict[float, np.ndarray] = {}
    for start, length, pitch, side in zip(notes.start_s, notes.duration_s, notes.pitch_midi, notes.pan, strict=True):
        f0_hz = 440 * 2 ** ((pitch - 69) / 12 + instruments.octave)
        table = table_by_pitch.setdefault(float(pitch), _wavetable(instruments, f0_hz))
        first = round(start * RATE_HZ)
        n = min(round(length * RATE_HZ), n_samples - first)
        if n <= 0:
            continue
        time_s = np.arange(n, dtype=np.float32) / RATE_HZ
        attack_s = min(0.08, 0.02 + 0.03 * instruments.decay_s)
        edge = np.minimum(1, np.minimum(time_s / attack_s, (n / RATE_HZ - time_s) / 0.03))
        position = (time_s * np.float32(f0_hz * _TABLE)).astype(np.int64) % _TABLE
        note = table[position] * edge * np.exp(-time_s / instruments.decay_s)
        out[:, first : first + n] += np.array([[1 - side], [side]], np.float32) * note
    return out


def _wavetable(instruments: Instruments, f0_hz: float) -> np.ndarray:
    """One period of the waveform, (_TABLE,) float32, with unit power and no harmonic above 9 kHz."""
    harmonic = np.arange(1, max(2, int(min(9000 / f0_hz, 60)) + 1))
    amplitude = harmonic**-instruments.rolloff * np.where(harmonic % 2 == 0, instruments.even, 1.0)
    amplitude = amplitude * (1 + 6 * np.exp(-0.5 * (np.log2(harmonic * f0_hz / instruments.body_hz) / 0.3) ** 2))
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[harmonic] = amplitude * np.exp(2j * np.pi * 0.618 * harmonic**2)  # different phases avoid spikes
    wave = np.fft.irfft(spectrum)
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def drum(
    instruments: Instruments, beat_s: float, patterns: dict[str, np.ndarray], n_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """The sound of kick, snare and hat, (N,) float32.

    `patterns` are "kick", "snare" and "hat" -> (16,) amplitudes of the sixteenths of a bar, which is repeated.
    """
    time_s = np.arange(int(0.25 * RATE_HZ)) / RATE_HZ
    noise = rng.standard_normal(len(time_s))
    # Times noise, it gives noise around hat_hz.
    ring = np.cos(2 * np.pi * instruments.hat_hz * time_s) + np.cos(2 * np.pi * 0.83 * instruments.hat_hz * time_s)
    sounds = {
        "kick": np.sin(2 * np.pi * (50 * time_s + 4 * (1 - np.exp(-time_s / 0.03)))) * np.exp(-time_s / 0.08),
        "snare": 0.6 * noise * np.exp(-time_s / 0.05),
        "hat": 0.5 * np.convolve(noise, np.hanning(16), mode="same") / 3 * ring * np.exp(-time_s / 0.03),
    }
    out = np.zeros(n_samples + len(time_s), np.float32)
    for step, first in enumerate(np.round(np.arange(0, n_samples, beat_s * RATE_HZ / 4)).astype(int)):
        for name, sound in sounds.items():
            if patterns[name][step % 16] > 0:
                out[first : first + len(sound)] += (patterns[name][step % 16] * sound).astype(np.float32)
    return out[:n_samples]
