"""Catalogue: the plan of a synthetic catalogue, and each of its songs as an encoded file.

`plan` names every song, its artist, its language and its file's properties; `pcm` makes the samples, `encode` the
bytes. A song depends on the config and on its own place in the plan alone, so that it is the same whoever makes it.

What a recogniser must not use is drawn for each song without regard to who sings: format, subtype and bit rate, sample
rate, channels, level, crest factor and length. Formats, rates and channels are dealt out like cards: an artist's
songs have all of them as evenly as can be. Songs are made at one rate, whatever the rate of their file: nothing in them
lies above 11 kHz, and what a file's rate and codec leave out lies above the 8 kHz that are listened to.

Legend: N samples, C channels.
"""

import csv
import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile
import soxr

from mtl_core.dataset.synthetic import names as titles
from mtl_core.dataset.synthetic import parameters, song
from mtl_core.dataset.synthetic.voice import RATE_HZ

CSV_COLUMNS = ("path", "artist", "language", "album", "song")
WRITTEN_RATES_HZ = (22_050, 32_000, 44_100, 48_000)
#: extension -> the ways in which it is written: libsndfile's format, subtype, bit rate mode and compression level.
ENCODINGS: dict[str, tuple[tuple[str, str, str | None, float | None], ...]] = {
    "wav": (("WAV", "PCM_16", None, None), ("WAV", "PCM_24", None, None), ("WAV", "FLOAT", None, None)),
    "flac": (("FLAC", "PCM_16", None, None), ("FLAC", "PCM_24", None, None)),
    "ogg": (("OGG", "VORBIS", None, 0.3), ("OGG", "VORBIS", None, 0.5)),
    "mp3": (("MP3", "MPEG_LAYER_III", "CONSTANT", 0.5), ("MP3", "MPEG_LAYER_III", "VARIABLE", 0.4)),
}
_CHUNK_FRAMES = 2**16  # libsndfile can crash on a long Vorbis file that is written at once
_CREST_DB = (9.5, 12.0)
_LENGTH = (0.95, 1.1)


@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """Which catalogue to make.

    Args:
        languages: number of languages, 1 to 400.
        artists_per_language: 1 to 200; an artist sings in one language.
        songs_per_artist: 1 to 1,000, on two albums (one song: on one).
        song_s: length of a song in seconds, 3 to 1,200; each song's own is 5% shorter to 10% longer.
        difficulty: "easy", or "hard": artists and languages overlap, songs of one artist differ more, band and noise
            are louder.
        seed: 0 or more; the same seed gives the same catalogue.

    Raises:
        ValueError: a value is not allowed.
    """

    languages: int = 4
    artists_per_language: int = 4
    songs_per_artist: int = 5
    song_s: float = 16.0
    difficulty: parameters.DifficultyName = "easy"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("languages", 1, 400),
            ("artists_per_language", 1, 200),
            ("songs_per_artist", 1, 1_000),
            ("song_s", 3, 1_200),
            ("seed", 0, 2**63 - 1),
        ):
            if not least <= getattr(self, name) <= most:  # nan too
                raise ValueError(f"{name} must be {least} to {most}, got {getattr(self, name)}")
        if self.difficulty not in parameters.DIFFICULTIES:
            raise ValueError(f"difficulty must be one of {tuple(parameters.DIFFICULTIES)}, got {self.difficulty!r}")


@dataclass(frozen=True, kw_only=True)
class Song:
    """One song of the plan: its labels, its file and what it is made from.

    Args:
        path: relative to the catalogue, its ending a key of `ENCODINGS`.
        encoding: one of `ENCODINGS` of that ending.
        sample_rate_hz, channels: of the file.
        duration_s: length before encoding.
        level_dbfs: root mean square over all channels; crest_db: peak over that.
        language_point, artist_point: of the cubes of `cast`.
        seed: of the song's own random generator.
    """

    path: str
    artist: str
    language: str
    album: str
    song: str
    encoding: tuple[str, str, str | None, float | None]
    sample_rate_hz: int
    channels: int
    duration_s: float
    level_dbfs: float
    crest_db: float
    difficulty: parameters.DifficultyName
    language_point: tuple[float, ...]
    artist_point: tuple[float, ...]
    seed: tuple[int, ...]


def plan_songs(config: CatalogueConfig) -> list[Song]:
    """Every song of the catalogue, sorted by path."""
    rng = np.random.default_rng([config.seed, 0])
    difficulty = parameters.DIFFICULTIES[config.difficulty]
    n_artists = config.languages * config.artists_per_language
    languages = parameters.spread(config.languages, parameters.LANGUAGE_DIMENSIONS, difficulty.language_spread, rng)
    artists = parameters.spread(n_artists, parameters.ARTIST_DIMENSIONS, difficulty.artist_spread, rng)
    codes, names = titles.language_codes(config.languages, rng), titles.artist_names(n_artists, rng)
    names_of_works = titles.works(n_artists * (config.songs_per_artist + 2), rng)
    tracks = []
    for i, (artist, point) in enumerate(zip(names, artists, strict=True)):
        songs, albums = names_of_works[i::n_artists][:-2], names_of_works[i::n_artists][-2:]
        files = zip(
            _deal(tuple(ENCODINGS), len(songs), rng),
            _deal(WRITTEN_RATES_HZ, len(songs), rng),
            _deal((1, 2), len(songs), rng),
            strict=True,
        )
        for j, (title, (extension, rate_hz, channels)) in enumerate(zip(songs, files, strict=True)):
            folder = f"audio/{titles.slug(artist)}"
            album = albums[2 * j // len(songs)]
            encodings = ENCODINGS[extension]
            tracks.append(
                Song(
                    path=f"{folder}/{titles.slug(album)}/{j + 1:02d}-{titles.slug(title)}.{extension}",
                    artist=artist,
                    language=codes[i // config.artists_per_language],
                    album=album,
                    song=title,
                    encoding=encodings[rng.integers(len(encodings))],
                    sample_rate_hz=rate_hz,
                    channels=channels,
                    duration_s=config.song_s * rng.uniform(*_LENGTH),
                    level_dbfs=rng.uniform(*difficulty.level_dbfs),
                    crest_db=rng.uniform(*_CREST_DB),
                    difficulty=config.difficulty,
                    language_point=tuple(languages[i // config.artists_per_language].tolist()),
                    artist_point=tuple(point.tolist()),
                    seed=(config.seed, 1, i, j),
                )
            )
    return sorted(tracks, key=lambda track: track.path)


def _deal(cards: tuple[Any, ...], count: int, rng: np.random.Generator) -> list[Any]:
    """`count` cards from shuffled packs: each as often as any other, give or take one."""
    packs = [rng.permutation(len(cards)) for _ in range(-(-count // len(cards)))]
    return [cards[i] for i in np.concatenate(packs)[:count]]


def pcm(track: Song) -> np.ndarray:
    """The song's samples before encoding, (N, C) float32 at `track.sample_rate_hz`, level and crest as planned."""
    rng = np.random.default_rng(track.seed)
    difficulty = parameters.DIFFICULTIES[track.difficulty]
    mix = song.render(np.array(track.language_point), np.array(track.artist_point), difficulty, track.duration_s, rng).T
    if track.channels == 1:
        mix = mix.mean(axis=1, keepdims=True)
    return _master(soxr.resample(mix, RATE_HZ, track.sample_rate_hz), track.level_dbfs, track.crest_db)


def _master(x_NC: np.ndarray, level_dbfs: float, crest_db: float) -> np.ndarray:
    """Limit the peaks softly until they stand `crest_db` above the root mean square, and set its level."""
    x_NC = x_NC / np.sqrt(np.mean(np.square(x_NC)))
    peak = float(np.abs(x_NC).max())
    low, high = 0.0, 10 ** (crest_db / 20)  # of the threshold, in units of the level
    for _ in range(10):
        threshold = (low + high) / 2
        limited = threshold * np.tanh(x_NC / threshold)
        reached = threshold * np.tanh(peak / threshold) / float(np.sqrt(np.mean(np.square(limited))))
        low, high = (threshold, high) if reached < 10 ** (crest_db / 20) else (low, threshold)
    limited *= 10 ** (level_dbfs / 20) / np.sqrt(np.mean(np.square(limited)))
    return limited.astype(np.float32)


def encode(samples_NC: np.ndarray, track: Song) -> bytes:
    """The bytes of the song's file."""
    format_, subtype, mode, level = track.encoding
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=track.sample_rate_hz,
        channels=track.channels,
        format=format_,
        subtype=subtype,
        bitrate_mode=mode,
        compression_level=level,
    ) as file:
        for start in range(0, len(samples_NC), _CHUNK_FRAMES):
            file.write(samples_NC[start : start + _CHUNK_FRAMES])
    return buffer.getvalue()


def labels_csv(tracks: list[Song]) -> bytes:
    """`labels.csv`: UTF-8, a header of `LABEL_COLUMNS`, a row a song."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(track) for track in tracks)
    return text.getvalue().encode()
