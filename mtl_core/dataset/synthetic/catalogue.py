"""Catalogue: the plan of a synthetic catalogue, and each of its songs as an encoded file.

`plan_songs` decides the artist, language and file properties of every song, `pcm` makes its samples, and `encode` its
bytes. A song depends only on the config and on its place in the plan, so every worker makes the same song.

Properties that a recogniser must not use are drawn for each song independently of the artist: format, subtype and bit
rate, sample rate, channels, level, crest factor and length. Formats, rates and channels are dealt like cards, so that
the songs of an artist have each of them as equally often as possible. All songs are made at one sample rate, whatever
the rate of their file. They contain nothing above 11 kHz, and what the rate and codec of a file remove is above the
8 kHz that the front end uses.

Legend: N samples, C channels.
"""

import csv
import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile
import soxr

from mtl_core.dataset.synthetic import names, parameters, song
from mtl_core.dataset.synthetic.voice import RATE_HZ

CSV_COLUMNS = ("path", "artist", "language", "album", "song")
WRITTEN_RATES_HZ = (22_050, 32_000, 44_100, 48_000)
#: extension -> its encodings: format, subtype, bit rate mode and compression level of libsndfile.
ENCODINGS: dict[str, tuple[tuple[str, str, str | None, float | None], ...]] = {
    "wav": (("WAV", "PCM_16", None, None), ("WAV", "PCM_24", None, None), ("WAV", "FLOAT", None, None)),
    "flac": (("FLAC", "PCM_16", None, None), ("FLAC", "PCM_24", None, None)),
    "ogg": (("OGG", "VORBIS", None, 0.3), ("OGG", "VORBIS", None, 0.5)),
    "mp3": (("MP3", "MPEG_LAYER_III", "CONSTANT", 0.5), ("MP3", "MPEG_LAYER_III", "VARIABLE", 0.4)),
}
_CHUNK_FRAMES = 2**16  # libsndfile can crash when a long Vorbis file is written at once
_CREST_DB = (9.5, 12.0)
_LENGTH = (0.95, 1.1)


@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """The parameters of a catalogue. Raises ValueError where one is out of range."""

    languages: int = 4
    """Number of languages, 1 to 400."""
    artists_per_language: int = 4
    """Artists in each language, 1 to 200; each artist sings in one language."""
    songs_per_artist: int = 5
    """Songs of each artist, 1 to 1000, on two albums (a single song: on one)."""
    song_s: float = 16.0
    """Length of a song in seconds, 3 to 1200; each is 5% shorter to 10% longer."""
    difficulty: parameters.DifficultyName = "easy"
    """hard: artists and languages overlap, songs of one artist differ more, band and noise are louder."""
    seed: int = 0
    """0 or more; the same seed gives the same catalogue."""

    def __post_init__(self) -> None:
        for name, minimum, maximum in (
            ("languages", 1, 400),
            ("artists_per_language", 1, 200),
            ("songs_per_artist", 1, 1_000),
            ("song_s", 3, 1_200),
            ("seed", 0, 2**63 - 1),
        ):
            if not minimum <= getattr(self, name) <= maximum:  # also for NaN
                raise ValueError(f"{name} must be {minimum} to {maximum}, got {getattr(self, name)}")
        if self.difficulty not in parameters.DIFFICULTIES:
            raise ValueError(f"difficulty must be one of {tuple(parameters.DIFFICULTIES)}, got {self.difficulty!r}")


@dataclass(frozen=True, kw_only=True)
class Song:
    """One song of the plan: its labels, its file, and the parameters of its sound."""

    path: str  # relative to the catalogue; its extension is a key of `ENCODINGS`
    artist: str
    language: str
    album: str
    song: str
    encoding: tuple[str, str, str | None, float | None]  # one of the `ENCODINGS` of the extension
    sample_rate_hz: int  # of the file
    channels: int  # of the file
    duration_s: float  # before encoding
    level_dbfs: float  # root mean square over all channels
    crest_db: float  # peak relative to the root mean square
    difficulty: parameters.DifficultyName
    language_point: tuple[float, ...]  # of the cube in `parameters`
    artist_point: tuple[float, ...]  # of the cube in `parameters`
    seed: tuple[int, ...]  # of the song's own random generator


def plan_songs(config: CatalogueConfig) -> list[Song]:
    """All songs of the catalogue, sorted by path."""
    rng = np.random.default_rng([config.seed, 0])
    difficulty = parameters.DIFFICULTIES[config.difficulty]
    n_artists = config.languages * config.artists_per_language
    languages = parameters.spread(config.languages, parameters.LANGUAGE_DIMENSIONS, difficulty.language_spread, rng)
    artists = parameters.spread(n_artists, parameters.ARTIST_DIMENSIONS, difficulty.artist_spread, rng)
    language_codes, artist_names = names.language_codes(config.languages, rng), names.artist_names(n_artists, rng)
    titles = names.works(n_artists * (config.songs_per_artist + 2), rng)
    tracks = []
    for i, (artist, point) in enumerate(zip(artist_names, artists, strict=True)):
        songs, albums = titles[i::n_artists][:-2], titles[i::n_artists][-2:]
        files = zip(
            _deal(tuple(ENCODINGS), len(songs), rng),
            _deal(WRITTEN_RATES_HZ, len(songs), rng),
            _deal((1, 2), len(songs), rng),
            strict=True,
        )
        for j, (title, (extension, rate_hz, channels)) in enumerate(zip(songs, files, strict=True)):
            folder = f"audio/{names.slug(artist)}"
            album = albums[2 * j // len(songs)]
            encodings = ENCODINGS[extension]
            tracks.append(
                Song(
                    path=f"{folder}/{names.slug(album)}/{j + 1:02d}-{names.slug(title)}.{extension}",
                    artist=artist,
                    language=language_codes[i // config.artists_per_language],
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
    """`count` cards from shuffled packs; the numbers of any two cards differ by at most one."""
    packs = [rng.permutation(len(cards)) for _ in range(-(-count // len(cards)))]
    return [cards[i] for i in np.concatenate(packs)[:count]]


def pcm(track: Song) -> np.ndarray:
    """The samples of a song, (N, C) float32 at `track.sample_rate_hz`, with the planned level and crest factor."""
    rng = np.random.default_rng(track.seed)
    difficulty = parameters.DIFFICULTIES[track.difficulty]
    mix = song.render(np.array(track.language_point), np.array(track.artist_point), difficulty, track.duration_s, rng).T
    if track.channels == 1:
        mix = mix.mean(axis=1, keepdims=True)
    return _master(soxr.resample(mix, RATE_HZ, track.sample_rate_hz), track.level_dbfs, track.crest_db)


def _master(x_NC: np.ndarray, level_dbfs: float, crest_db: float) -> np.ndarray:
    """Limit the peaks softly until they are `crest_db` above the root mean square, and set the level."""
    x_NC = x_NC / np.sqrt(np.mean(np.square(x_NC)))
    peak = float(np.abs(x_NC).max())
    low, high = 0.0, 10 ** (crest_db / 20)  # bounds of the threshold, relative to the root mean square
    for _ in range(10):
        threshold = (low + high) / 2
        limited = threshold * np.tanh(x_NC / threshold)
        reached = threshold * np.tanh(peak / threshold) / float(np.sqrt(np.mean(np.square(limited))))
        low, high = (threshold, high) if reached < 10 ** (crest_db / 20) else (low, threshold)
    limited *= 10 ** (level_dbfs / 20) / np.sqrt(np.mean(np.square(limited)))
    return limited.astype(np.float32)


def encode(samples_NC: np.ndarray, track: Song) -> bytes:
    """Encode samples (N, C) as the file of a song."""
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
    """The bytes of labels.csv: UTF-8, with the header `CSV_COLUMNS` and a row for each song."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(track) for track in tracks)
    return text.getvalue().encode()
