"""mtl-core find_neighbours --tags URI --out URI [--k 10] [--duplicate-similarity X]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.pipelines.find_neighbours import NeighbourOptions, find_neighbours
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options(NeighbourOptions):
    """Find each track's nearest tracks by embedding, likely duplicates, and the artists that an unknown track may be
    by."""

    tags: str
    """OUT of tag_catalogue."""
    out: str
    """Folder for neighbours.parquet and duplicates.parquet; existing files are replaced."""


def main(options: Options) -> None:
    with cli.flag_errors():
        tags, out = Location(options.tags), Location(options.out)
    print(find_neighbours(tags, out, options))
