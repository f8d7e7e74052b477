"""Make a synthetic catalogue to learn from: audio/… (wav, flac, ogg and mp3 mixed) and labels.csv."""

from dataclasses import dataclass
from typing import Literal

from mtl_core import cli
from mtl_core.dataset.synthetic.catalogue import CatalogueConfig
from mtl_core.pipelines.make_demo_catalogue import make_demo_catalogue
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make a synthetic catalogue to learn from: audio/… (wav, flac, ogg and mp3 mixed) and labels.csv."""

    out: str
    """Folder to write: a path, file://… or s3://…; new, empty, or a catalogue of this job, which is replaced."""
    languages: int = 4
    """Number of languages, 1 to 400."""
    artists_per_language: int = 4
    """Artists in each language, 1 to 200."""
    songs_per_artist: int = 5
    """Songs of each artist, 1 to 1000, on two albums."""
    song_s: float = 16.0
    """Length of a song in seconds, 3 to 1200; each is 5% shorter to 10% longer."""
    difficulty: Literal["easy", "hard"] = "easy"
    """hard: artists and languages overlap, songs of one artist differ more, band and noise are louder."""
    seed: int = 0
    """0 or more; the same seed gives the same catalogue."""


def main(options: Options) -> None:
    with cli.flag_errors():
        config = CatalogueConfig(
            languages=options.languages,
            artists_per_language=options.artists_per_language,
            songs_per_artist=options.songs_per_artist,
            song_s=options.song_s,
            difficulty=options.difficulty,
            seed=options.seed,
        )
        out = Location(options.out)
    made = make_demo_catalogue(config, out)
    print(
        f"{out}: {made.songs} songs of {made.artists} artists in {made.languages} languages, "
        f"{made.audio_s / 60:.1f} minutes, {made.size_bytes / 1e6:.1f} MB"
    )
