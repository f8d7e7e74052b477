"""Parameters of the sound of languages and artists, each a point in a unit cube.

`spread` draws the points; `language_at`, `singer_at` and `instruments_at` turn a point into parameters. The difficulty
is how close the points are. Easy: points of a Latin hypercube, far apart, and songs close to the point of their artist.
Hard: points close to the middle of the cube, and songs that differ more from their artist.

Legend: D dimensions of a cube, V vowels of a language.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import pdist

from mtl_core.dataset.synthetic.accompaniment import Instruments
from mtl_core.dataset.synthetic.voice import Singer

DifficultyName = Literal["easy", "hard"]
LANGUAGE_DIMENSIONS = 10
ARTIST_DIMENSIONS = 13

#: First three formants in Hz of a vocal tract of 17.5 cm, rounded. Source: Peterson & Barney, "Control methods used in
#: a study of the vowels" (1952); vowels that English lacks are interpolated.
_VOWELS_HZ = np.array(
    [
        (280, 2250, 2950),  # i
        (280, 1850, 2300),  # y
        (320, 1600, 2400),  # barred i
        (320, 1250, 2300),  # turned m
        (310, 780, 2250),  # u
        (400, 2050, 2650),  # e
        (400, 1600, 2300),  # o slash
        (420, 800, 2400),  # o
        (500, 1450, 2450),  # schwa
        (560, 1850, 2550),  # epsilon
        (560, 900, 2400),  # open o
        (670, 1700, 2450),  # ash
        (730, 1300, 2500),  # a
        (720, 1050, 2450),  # script a
    ]
)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How far apart languages and artists are, and how much other sound covers them.

    Deviations are standard deviations. Of a range a value is drawn for each song.
    """

    artist_spread: float | None  # deviation around the middle of the cube; None is a Latin hypercube
    language_spread: float | None  # the same for languages
    song_variation: float  # deviation of the point of a song around that of its artist
    shift_semitones: float  # deviation of the register of a song around that of its artist
    voice_over_band_db: tuple[float, float]  # range of the level of the voice over the accompaniment
    noise_below_db: tuple[float, float]  # range of the level of the mix over the noise
    equaliser_db: float  # deviation of the equaliser gains of a song
    level_dbfs: tuple[float, float]  # range of the level of a file


DIFFICULTIES: dict[DifficultyName, Difficulty] = {
    "easy": Difficulty(
        artist_spread=None,
        language_spread=None,
        song_variation=0.02,
        shift_semitones=0.5,
        voice_over_band_db=(4, 7),
        noise_below_db=(40, 55),
        equaliser_db=0.7,
        level_dbfs=(-20, -17),
    ),
    "hard": Difficulty(
        artist_spread=0.2,
        language_spread=0.2,
        song_variation=0.08,
        shift_semitones=2,
        voice_over_band_db=(-3, 6),
        noise_below_db=(15, 40),
        equaliser_db=4,
        level_dbfs=(-28, -16),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Language:
    """The sound of an invented language."""

    syllables_per_beat: float  # mean number, 1 to 4
    contrast: float  # length of a beat's first syllable relative to the others; 1 is syllable-timed, 3 stress-timed
    phrase_beats: int  # beats between pauses
    glide_semitones: float  # rise of the pitch within a syllable; negative is a fall
    onset_share: np.ndarray  # (3,) probabilities of FRICATIVE, STOP, NASAL
    onset_s: float  # length of a consonant
    noise_hz: float  # centre frequency of the noise of consonants
    vowel_hz: np.ndarray  # (V, 3) formants of its vowels
    vowel_share: np.ndarray  # (V,) their probabilities


def spread(count: int, dimensions: int, deviation: float | None, rng: np.random.Generator) -> np.ndarray:
    """Draw points (count, D) in [0, 1].

    `deviation` is their standard deviation around the middle. None draws several Latin hypercubes and takes the one
    with the largest distance between its closest points.
    """
    if deviation is not None:
        return np.clip(rng.normal(0.5, deviation, (count, dimensions)), 0, 1)
    n_draws = 100 if count <= 100 else 3
    hypercubes = ((np.argsort(rng.random((count, dimensions)), axis=0) + 0.5) / count for _ in range(n_draws))
    return max(hypercubes, key=lambda points: pdist(points).min() if count > 1 else 0)


def _between(low: float, high: float, u: float) -> float:
    return float(low + (high - low) * u)


def _ratio(low: float, high: float, u: float) -> float:
    return float(low * (high / low) ** u)


def language_at(point_D: np.ndarray) -> Language:
    """The language at a point (LANGUAGE_DIMENSIONS,) in [0, 1]."""
    rate, contrast, phrase, glide, fricative, nasal, onset, noise, height, backness = point_D
    # The vowels of a language are the five closest to a point in the chart of vowel height and backness.
    chart = np.log2(_VOWELS_HZ[:, :2])
    centre = np.log2([_ratio(300, 700, height), _ratio(900, 2000, backness)])
    distance_V = np.sum(((chart - centre) / np.ptp(chart, axis=0)) ** 2, axis=1)
    vowels = np.argsort(distance_V, kind="stable")[:5]
    share_V = np.exp(-3 * distance_V[vowels])
    onset_share = np.array([_between(0.1, 1, fricative), 0.4, _between(0.1, 1, nasal)])
    return Language(
        syllables_per_beat=_between(1.2, 3.4, rate),
        contrast=_between(1, 3, contrast),
        phrase_beats=round(_between(3, 8, phrase)),
        glide_semitones=_between(-4, 4, glide),
        onset_share=onset_share / onset_share.sum(),
        onset_s=_between(0.05, 0.12, onset),
        noise_hz=_ratio(2200, 6500, noise),
        vowel_hz=_VOWELS_HZ[vowels].astype(float),
        vowel_share=share_V / share_V.sum(),
    )


def singer_at(point_D: np.ndarray) -> Singer:
    """The voice of the artist at a point (ARTIST_DIMENSIONS,) in [0, 1]."""
    register, tract, tilt, breath, rate, depth, ring = point_D[:7]
    return Singer(
        register_hz=_ratio(90, 420, register),
        tract_scale=_ratio(0.82, 1.28, tract),
        tilt_db=_between(5, 14, tilt),
        breath=_between(0, 1.5, breath) ** 2,
        vibrato_hz=_between(4, 7.5, rate),
        vibrato_semitones=_between(0, 1, depth),
        ring_db=_between(0, 14, ring),
    )


def instruments_at(point_D: np.ndarray) -> Instruments:
    """The instruments of the artist at a point (ARTIST_DIMENSIONS,) in [0, 1]."""
    decay, rolloff, even, body, octave, hat = point_D[7:]
    return Instruments(
        decay_s=_ratio(0.12, 3, decay),
        rolloff=_between(0.4, 2, rolloff),
        even=float(even),
        body_hz=_ratio(300, 4000, body),
        octave=min(2, int(3 * octave)) - 1,
        hat_hz=_ratio(3500, 7500, hat),
    )
