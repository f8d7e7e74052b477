"""Voice: a source-filter singing voice that turns syllables into mono sound.

The source is a train of band-limited glottal pulses plus breath noise. The filter is a cascade of five formant
resonances, whose magnitude response is applied frame by frame. Consonants are shaped noise (fricatives, stops) or a
nasal murmur. Sources: Fant, "Acoustic Theory of Speech Production" (1960); for the cascade Klatt, "Software for a
cascade/parallel formant synthesizer" (1980).

Legend: N samples at `RATE_HZ`, P frames of `HOP` samples, F bins, K syllables, G pulses.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

RATE_HZ = 22_050
HOP = 256
_FFT = 4 * HOP
_BINS_HZ = np.fft.rfftfreq(_FFT, 1 / RATE_HZ).astype(np.float32)
_BANDWIDTHS_HZ = (80.0, 100.0, 140.0, 220.0, 300.0)
FRICATIVE, STOP, NASAL = range(3)
_NASAL_HZ = (280.0, 1100.0, 2300.0)
_BURST_S = 0.025


@dataclass(frozen=True, kw_only=True)
class Singer:
    """The properties of a singer's voice."""

    register_hz: float  # middle of the range of the melodies
    tract_scale: float  # factor on all formants; 1 is a vocal tract of 17.5 cm, and a larger factor a shorter tract
    tilt_db: float  # decrease of the source spectrum per octave; 4 is a pressed voice, 12 a soft one
    breath: float  # level of the breath noise; 0 is none, 1 a breathy voice
    vibrato_hz: float  # rate of the vibrato
    vibrato_semitones: float  # depth of the vibrato in each direction
    ring_db: float  # gain of the singer's formant near 2.9 kHz


@dataclass(frozen=True, kw_only=True)
class Syllables:
    """K syllables in order of time, each a consonant (the onset) and a vowel; between them there is silence.

    Every array is (K,) unless a shape is given.
    """

    start_s: np.ndarray
    duration_s: np.ndarray
    pitch_midi: np.ndarray  # MIDI note numbers
    glide_semitones: np.ndarray  # rise of the pitch from the start of the syllable to its end
    stress: np.ndarray  # amplitude, 0 to 1
    vowel_hz: np.ndarray  # (K, 3) formants for tract_scale 1
    onset: np.ndarray  # FRICATIVE, STOP or NASAL
    onset_s: np.ndarray  # length of the consonant
    noise_hz: np.ndarray  # centre frequency of its noise


def sing(syllables: Syllables, singer: Singer, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """The sound of the voice, (N,) float32 at `RATE_HZ`; the level is arbitrary."""
    n_frames = n_samples // HOP + 2
    time_s = np.arange(n_frames) * (HOP / RATE_HZ)
    k = np.maximum(np.searchsorted(syllables.start_s, time_s, side="right") - 1, 0)
    into_s = time_s - syllables.start_s[k]
    sounding = (into_s >= 0) & (into_s < syllables.duration_s[k])
    in_onset = sounding & (into_s < syllables.onset_s[k])
    onset = syllables.onset[k]
    nasal = in_onset & (onset == NASAL)

    open_P = _smooth(np.where(sounding & ~in_onset, 1.0, np.where(nasal, 0.45, 0.0)) * syllables.stress[k], 5)
    burst = (onset == FRICATIVE) | (into_s > syllables.onset_s[k] - _BURST_S)
    noise_P = _smooth((in_onset & ~nasal & burst) * (0.5 + 0.5 * syllables.stress[k]), 3)

    part = np.clip(into_s / syllables.duration_s[k], 0, 1) - 0.5
    pitch_P = _smooth(syllables.pitch_midi[k] + syllables.glide_semitones[k] * part, 7)
    phase = 2 * np.pi * (singer.vibrato_hz * time_s + rng.random())
    pitch_P = pitch_P + singer.vibrato_semitones * np.sin(phase) + 0.1 * _smooth(rng.standard_normal(n_frames), 25)
    f0_P = 440 * 2 ** ((pitch_P - 69) / 12)

    formants_P3 = np.where(nasal[:, None], np.array(_NASAL_HZ), syllables.vowel_hz[k])
    formants_P3 = np.stack([_smooth(track, 7) for track in formants_P3.T], 1)
    tract_PF = _tract(formants_P3 * singer.tract_scale, singer)
    # The radiation from the lips adds 6 dB per octave.
    tilt_F = np.maximum(_BINS_HZ / 120, 1) ** np.float32(-(singer.tilt_db - 6) / 6.02)

    sample = np.arange(n_samples)
    at = sample / HOP
    pulses = _pulses(np.interp(at, np.arange(n_frames), f0_P), rng) * np.interp(at, np.arange(n_frames), open_P)
    noise = rng.standard_normal(n_samples).astype(np.float32)
    bump_PF = np.exp(-0.5 * (np.log2(np.maximum(_BINS_HZ, 50) / syllables.noise_hz[k][:, None]) / 0.35) ** 2)
    breath_PF = (0.02 * singer.breath * open_P)[:, None] * tract_PF
    voiced = _filter(pulses.astype(np.float32), tract_PF * tilt_F)
    return voiced + _filter(noise, (breath_PF + (0.05 * noise_P)[:, None] * bump_PF).astype(np.float32))


def _smooth(x_P: np.ndarray, width: int) -> np.ndarray:
    """A Hann-weighted average over `width` frames (odd), which removes jumps."""
    kernel = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(x_P, width // 2, mode="edge"), kernel / kernel.sum(), mode="valid")


def _tract(formants_P3: np.ndarray, singer: Singer) -> np.ndarray:
    """Magnitude response of the cascade at `_BINS_HZ`, (P, F) float32; it is 1 at 0 Hz."""
    high = np.broadcast_to(np.array([3500.0, 4500.0]) * singer.tract_scale, (len(formants_P3), 2))
    squared_F = _BINS_HZ**2
    power_PF = np.ones((len(formants_P3), len(_BINS_HZ)), np.float32)
    for centre_P, bandwidth_hz in zip(np.hstack([formants_P3, high]).T.astype(np.float32), _BANDWIDTHS_HZ, strict=True):
        centre_P1 = centre_P[:, None] ** 2
        power_PF *= centre_P1**2 / ((centre_P1 - squared_F) ** 2 + squared_F * np.float32(bandwidth_hz**2))
    ring_F = 10 ** (singer.ring_db / 20 * np.exp(-0.5 * ((_BINS_HZ - 2900 * singer.tract_scale) / 350) ** 2))
    return np.sqrt(power_PF) * ring_F.astype(np.float32)


def _pulses(f0_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A train of windowed-sinc pulses (N,), one per period: all harmonics are equally strong and none is aliased."""
    phase_N = np.cumsum(f0_N / RATE_HZ)
    before_G = np.flatnonzero(np.diff(np.floor(phase_N)))
    fraction_G = (np.ceil(phase_N[before_G]) - phase_N[before_G]) / (phase_N[before_G + 1] - phase_N[before_G])
    jitter_G = rng.normal(0, 0.006, len(before_G)) * RATE_HZ / f0_N[before_G]
    instant_G = before_G + fraction_G + jitter_G
    whole_G = np.floor(instant_G).astype(np.int64)
    taps = np.arange(-7, 9)
    distance_GT = taps - (instant_G - whole_G)[:, None]
    strength_G = rng.normal(1, 0.05, len(before_G)) * np.sqrt(200 / f0_N[before_G])  # the same power at every pitch
    pulse_GT = np.sinc(distance_GT) * np.cos(np.pi * distance_GT / 17) ** 2 * strength_G[:, None]
    index_GT = np.clip(whole_G[:, None] + taps, 0, len(f0_N) - 1)
    return np.bincount(index_GT.ravel(), pulse_GT.ravel(), minlength=len(f0_N))


def _filter(x_N: np.ndarray, gain_PF: np.ndarray) -> np.ndarray:
    """Apply a zero-phase filter whose gain changes every `HOP` samples: overlap-add of Hann frames of 2 HOP samples."""
    n_frames = len(x_N) // HOP + 1
    padded = np.pad(x_N, (HOP, 2 * HOP))
    frames_PT = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP][:n_frames]
    window = np.hanning(2 * HOP + 1)[:-1].astype(np.float32)
    buffer = np.zeros((n_frames, _FFT), np.float32)
    buffer[:, HOP : 3 * HOP] = frames_PT * window  # zeros on both sides hold the response of the filter
    out_PT = fft.irfft(fft.rfft(buffer) * gain_PF[:n_frames], n=_FFT)
    y = np.zeros((n_frames + 3, HOP), np.float32)
    for part in range(4):
        y[part : part + n_frames] += out_PT[:, part * HOP : (part + 1) * HOP]
    return y.ravel()[2 * HOP : 2 * HOP + len(x_N)]
