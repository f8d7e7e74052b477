"""Song: composes in a key, a tempo and a language, has it sung and played, and mixes it.

The songs of an artist share the singer, the instruments and the language. Key, scale, tempo, chords, patterns, mix,
room, equaliser and noise are drawn for each song.

Legend: N samples at `voice.RATE_HZ`, C channels (2), K syllables, M notes.
"""

from dataclasses import replace

import numpy as np
from scipy import fft, signal

from mtl_core.dataset.synthetic import accompaniment
from mtl_core.dataset.synthetic.accompaniment import Notes
from mtl_core.dataset.synthetic.parameters import Difficulty, Language, instruments_at, language_at, singer_at
from mtl_core.dataset.synthetic.voice import RATE_HZ, Singer, Syllables, sing

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 7, 9))
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 0, 4), (5, 3, 0, 4), (0, 2, 3, 4))
_TEMPO_BPM = (84.0, 132.0)


def render(
    language_D: np.ndarray, artist_D: np.ndarray, difficulty: Difficulty, duration_s: float, rng: np.random.Generator
) -> np.ndarray:
    """Render one song of an artist, (2, N) float32 at `voice.RATE_HZ`; the level is arbitrary.

    Args:
        language_D, artist_D: points of the cubes in `parameters`.
        difficulty: how much the song differs from its artist, and the levels of the mix.
        duration_s: length in seconds.
        rng: everything that belongs to the song is drawn from it.
    """
    language_D = np.clip(rng.normal(language_D, difficulty.song_variation), 0, 1)
    artist_D = np.clip(rng.normal(artist_D, difficulty.song_variation), 0, 1)
    language, singer, instruments = language_at(language_D), singer_at(artist_D), instruments_at(artist_D)
    shift = 2 ** (rng.normal(0, difficulty.shift_semitones) / 12)
    singer = replace(singer, register_hz=singer.register_hz * shift)
    n_samples = round(duration_s * RATE_HZ)
    beat_s = 60 / rng.uniform(*_TEMPO_BPM)
    tonic, scale = int(rng.integers(12)), np.array(_SCALES[rng.integers(len(_SCALES))])

    voice = sing(_lyrics(language, singer, (tonic + scale) % 12, beat_s, duration_s, rng), singer, n_samples, rng)
    chords = _unit(accompaniment.play(_chords(tonic, scale, beat_s, duration_s, rng), instruments, n_samples))
    drums = _unit(accompaniment.drum(instruments, beat_s, _beats(rng), n_samples, rng))
    drums_db = rng.uniform(-10, -6)
    backing = _unit(chords + 10 ** (drums_db / 20) * drums)
    backing_db = -rng.uniform(*difficulty.voice_over_band_db)
    dry = _unit(voice) + 10 ** (backing_db / 20) * backing
    wet_db = rng.uniform(-22, -12)
    room = _room(rng)
    wet = np.stack([signal.oaconvolve(side, echo)[:n_samples] for side, echo in zip(dry, room, strict=True)])
    mix = _equalise(dry + 10 ** (wet_db / 20) * _unit(wet), difficulty.equaliser_db, rng)
    noise_db = -rng.uniform(*difficulty.noise_below_db)
    hiss = rng.standard_normal((2, n_samples)).astype(np.float32)
    return _unit(mix) + np.float32(10 ** (noise_db / 20)) * hiss


def _unit(x: np.ndarray) -> np.ndarray:
    return x / max(float(np.sqrt(np.mean(np.square(x)))), 1e-9)


def _lyrics(
    language: Language, singer: Singer, key: np.ndarray, beat_s: float, duration_s: float, rng: np.random.Generator
) -> Syllables:
    """The syllables of a song: one rhythmic foot of the language a beat, one beat of silence after each phrase.

    Melodies are random walks over the pitch classes of `key`, within 5 semitones of the singer's register.
    """
    starts, lengths, stresses = [], [], []
    for beat in range(int(duration_s / beat_s) + 1):
        if beat % (language.phrase_beats + 1) == language.phrase_beats:
            continue
        count = int(language.syllables_per_beat + rng.random())
        weights = np.array([language.contrast] + [1.0] * (count - 1)) if count > 1 else np.ones(1)
        foot_s = beat_s * weights / weights.sum()
        starts += list(beat * beat_s + np.concatenate([[0], np.cumsum(foot_s)[:-1]]))
        lengths += list(0.92 * foot_s)
        stresses += [1.0] + [max(0.4, 1.2 - 0.2 * language.contrast)] * (count - 1)
    k = len(starts)
    vowel = rng.choice(len(language.vowel_share), k, p=language.vowel_share)
    centre = 69 + 12 * np.log2(singer.register_hz / 440)
    notes = np.array([note for note in range(24, 96) if note % 12 in key and abs(note - centre) < 5])
    walk = np.empty(k, int)
    place = int(np.argmin(abs(notes - centre)))
    for i, step in enumerate(rng.choice([-2, -1, 0, 1, 2], k, p=[0.15, 0.25, 0.2, 0.25, 0.15])):
        place = int(np.clip(place + step, 0, len(notes) - 1))
        walk[i] = place
    return Syllables(
        start_s=np.array(starts),
        duration_s=np.array(lengths),
        pitch_midi=notes[walk].astype(float),
        glide_semitones=np.full(k, language.glide_semitones),
        stress=np.array(stresses),
        vowel_hz=language.vowel_hz[vowel],
        onset=rng.choice(3, k, p=language.onset_share),
        onset_s=np.minimum(language.onset_s, 0.4 * np.array(lengths)),
        noise_hz=language.noise_hz * 2 ** rng.normal(0, 0.1, k),
    )


def _chords(tonic: int, scale: np.ndarray, beat_s: float, duration_s: float, rng: np.random.Generator) -> Notes:
    """The notes of one chord a bar, held, strummed or broken, and of its bass."""
    progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
    per_bar = (1, 2, 4, 8)[rng.integers(4)]
    broken = per_bar > 2 and rng.random() < 0.6
    width = rng.uniform(0, 0.4)
    notes: list[tuple[float, float, float, float]] = []
    for bar in range(int(duration_s / (4 * beat_s)) + 1):
        root = progression[bar % 4]
        chord = [48 + tonic + int(scale[(root + step) % len(scale)]) for step in (0, 2, 4)]
        step_s = 4 * beat_s / per_bar
        for i in range(per_bar):
            start = (4 * bar + 4 * i / per_bar) * beat_s
            tones = [(i * 2 + bar) % 3] if broken else range(3)
            notes += [(start, step_s, chord[tone], 0.5 + width * (tone - 1)) for tone in tones]
        notes += [(4 * bar * beat_s + half * 2 * beat_s, 1.8 * beat_s, chord[0] - 12, 0.5) for half in range(2)]
    start_s, note_s, pitch_midi, pan = np.array(notes, float).T
    return Notes(start_s=start_s, duration_s=note_s, pitch_midi=pitch_midi, pan=pan)


def _beats(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A pattern for each drum: the amplitudes (16,) of the sixteenths of a bar."""
    step = np.arange(16)
    kick = (step % 8 == 0) | (rng.random(16) < 0.08)
    snare = (step % 8 == 4) & (rng.random() < 0.8)
    hat = step % int(rng.choice([1, 2, 4])) == 0
    return {"kick": kick * 1.0, "snare": snare * 0.8, "hat": hat * rng.uniform(0.3, 0.8)}


def _room(rng: np.random.Generator) -> np.ndarray:
    """Impulse responses (2, taps) of a room: noise that decays by 60 dB in 0.3 to 0.9 s."""
    decay_s = rng.uniform(0.3, 0.9)
    time_s = np.arange(int(decay_s * RATE_HZ)) / RATE_HZ
    return (rng.standard_normal((2, len(time_s))) * 10 ** (-3 * time_s / decay_s)).astype(np.float32)


def _equalise(x_CN: np.ndarray, deviation_db: float, rng: np.random.Generator) -> np.ndarray:
    """Apply a smooth gain over frequency, drawn at the octaves from 125 Hz to 8 kHz."""
    n_samples = x_CN.shape[1]
    length = fft.next_fast_len(n_samples + RATE_HZ // 10, real=True)
    octave = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / RATE_HZ), 20) / 125)
    gain_db = np.interp(octave, np.arange(7), rng.normal(0, deviation_db, 7))
    return fft.irfft(fft.rfft(x_CN, n=length) * 10 ** (gain_db / 20).astype(np.float32), n=length)[:, :n_samples]
