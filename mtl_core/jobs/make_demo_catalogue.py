"""mtl-core make_demo_catalogue --out URI [--languages N] [--difficulty hard] [--seed N]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.dataset.synthetic.catalogue import CatalogueConfig
from mtl_core.pipelines.make_demo_catalogue import make_demo_catalogue
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(CatalogueConfig):
    """Make a synthetic catalogue to learn from: audio/… (wav, flac, ogg and mp3 mixed) and labels.csv."""

    out: str
    """Folder to write: a path, file://… or s3://…; new, empty, or a catalogue of this job, which is replaced."""


def main(options: Options) -> None:
    with cli.flag_errors():
        out = Location(options.out)
    made = make_demo_catalogue(options, out)
    print(
        f"{out}: {made.songs} songs of {made.artists} artists in {made.languages} languages, "
        f"{made.audio_s / 60:.1f} minutes, {made.size_bytes / 1e6:.1f} MB"
    )
