"""python jobs/build_manifest.py --catalogue URI [--labels CSV] --out URI"""

from dataclasses import dataclass

from mtl_core import command_line
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """List a catalogue's tracks, join their labels, and write the manifest that the other jobs read."""

    catalogue: str
    """Folder or s3:// prefix; every audio file below it is a track."""
    labels: str | None = None
    """CSV with a column `path` relative to the catalogue; optional `artist`, `language`, `album`, `track_id`; other
    columns are carried.
    """
    out: str
    """Manifest to write, a Parquet file; one that is there is replaced."""


def main(options: Options) -> None:
    with command_line.checked():
        catalogue, out = Location(options.catalogue), Location(options.out)
        labels = None if options.labels is None else Location(options.labels)
    print(build_manifest(catalogue, labels, out))


if __name__ == "__main__":
    command_line.main(main, Options)
