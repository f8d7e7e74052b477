"""mtl-core build_manifest --catalogue URI [--labels CSV | --labels-from folders] [--inventory URI] --out URI"""

from dataclasses import dataclass
from typing import Literal

from mtl_core import cli
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """List a catalogue's tracks, join their labels, and write the manifest that the other jobs read."""

    catalogue: str
    """Folder or s3:// prefix; every audio file below it is a track."""
    labels: str | None = None
    """CSV with a column `path` relative to the catalogue; optional `artist`, `language`, `album`, `track_id`; other
    columns are carried."""
    labels_from: Literal["csv", "folders"] = "csv"
    """folders: no CSV, the folders that a song lies in are its labels: LANGUAGE_<language>/ARTIST_<artist>/SONG or
    <language>/<artist>/SONG. An artist can have a folder for each album. A prefix is not part of the name."""
    inventory: str | None = None
    """manifest.json of an S3 Inventory (CSV or Parquet) of the catalogue's bucket, read instead of listing it: as old
    as the inventory, but without a request for each 1,000 files."""
    out: str
    """Manifest to write, a Parquet file; one that is there is replaced."""

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels_from == "folders":
            raise ValueError("--labels needs --labels-from csv, got folders")


def main(options: Options) -> None:
    with cli.flag_errors():
        catalogue, out = Location(options.catalogue), Location(options.out)
        labels = None if options.labels is None else Location(options.labels)
        inventory = None if options.inventory is None else Location(options.inventory)
    from_folders = options.labels_from == "folders"
    print(build_manifest(catalogue, labels, out, labels_from_folders=from_folders, inventory=inventory))
