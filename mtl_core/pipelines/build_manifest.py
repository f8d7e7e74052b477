"""List a catalogue and write its manifest. Requests are made in parallel by threads, so this job needs no Ray."""

import shutil
import tempfile
from pathlib import Path

from mtl_core.dataset.catalogue_files import Examples
from mtl_core.dataset.catalogue_listing import CatalogueListing, list_catalogue
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.inventory import open_inventory
from mtl_core.storage.location import Location
from mtl_core.storage.sql import open_database


def build_manifest(
    catalogue: Location,
    labels: Location | None,
    out: Location,
    *,
    labels_from_folders: bool = False,
    inventory: Location | None = None,
) -> str:
    """Write the manifest of a catalogue.

    Args:
        catalogue, labels, labels_from_folders: as in `list_catalogue`.
        out: a Parquet file; an existing one is replaced.
        inventory: the `manifest.json` of an S3 Inventory of the catalogue's bucket, read instead of listing it.

    Returns:
        A summary to print.

    Raises:
        InputError: as `list_catalogue` and `open_inventory`, or `out` cannot be written.
    """
    check_writable(out, folder=False)
    listed_in = None if inventory is None else open_inventory(inventory)
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        draft = Path(folder) / "manifest.parquet"
        listing = list_catalogue(catalogue, labels, draft, labels_from_folders=labels_from_folders, inventory=listed_in)
        with as_input_error(out), out.write_via() as path:
            shutil.copyfile(draft, path)
        lines = [*_summary(draft, out), *_warnings(listing)]
    if listed_in is not None:
        lines.insert(1, f"objects as of {listed_in.created_at:%Y-%m-%d %H:%M} UTC, when the inventory was begun")
    return "\n".join(lines)


def _summary(manifest: Path, out: Location) -> list[str]:
    with open_database() as database:
        rows = database.read_parquet(str(manifest))
        n_tracks, n_bytes = rows.aggregate("count(*), sum(size_bytes)").fetchall()[0]
        formats = rows.aggregate("lower(split_part(uri, '.', -1)) AS name, count(*) AS n").order("n DESC, name")
        lines = [
            f"{n_tracks:,} tracks, {(n_bytes or 0) / 1e9:.2f} GB -> {out}",
            "formats: " + ", ".join(f"{name} {n:,}" for name, n in formats.limit(8).fetchall()),
        ]
        for task in ("artist", "language"):
            n_labelled, n_classes = rows.aggregate(f"count({task}), count(DISTINCT {task})").fetchall()[0]
            lines.append(f"{task}: {n_labelled:,} labelled, {n_classes:,} classes")
    return lines


def _warnings(listing: CatalogueListing) -> list[str]:
    of_kind: list[tuple[Examples, str]] = [
        (listing.left_out.unreadable_folders, "folders cannot be read; what lies in them is left out"),
        (
            listing.labels_by_likeness,
            "files have the labels of a path that is written in another way (accents, spaces)",
        ),
        (listing.labels_without_file, "label rows have no file"),
        (listing.outside_layout, "files do not lie in LANGUAGE/ARTIST/ and have no labels"),
        (listing.left_out.undecodable_names, "files have names that are not UTF-8 and are left out"),
    ]
    return [f"warning: {found.count:,} {message}, e.g. {found.first}" for found, message in of_kind if found.count]
