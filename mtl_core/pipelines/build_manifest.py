"""List a catalogue and write its manifest. Listing is one request after another, so this job needs no Ray."""

from collections import Counter

from mtl_core.dataset import manifest
from mtl_core.dataset.catalogue_listing import CatalogueListing, list_catalogue
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location


def build_manifest(
    catalogue: Location, labels: Location | None, out: Location, *, labels_from_folders: bool = False
) -> str:
    """Write the manifest of a catalogue.

    Args:
        catalogue, labels, labels_from_folders: as in `list_catalogue`.
        out: a Parquet file; an existing one is replaced.

    Returns:
        A summary to print.

    Raises:
        InputError: as `list_catalogue`, or `out` cannot be written.
    """
    check_writable(out, folder=False)
    listing = list_catalogue(catalogue, labels, labels_from_folders=labels_from_folders)
    manifest.write(listing.table, out)
    return _summary(listing, out)


def _summary(listing: CatalogueListing, out: Location) -> str:
    table = listing.table
    formats = Counter(uri.rpartition(".")[2].lower() for uri in table["uri"].to_pylist())
    lines = [
        f"{len(table):,} tracks, {sum(table['size_bytes'].to_pylist()) / 1e9:.2f} GB -> {out}",
        "formats: " + ", ".join(f"{name} {count:,}" for name, count in formats.most_common(8)),
    ]
    for task in ("artist", "language"):
        labels = table[task].drop_null()
        lines.append(f"{task}: {len(labels):,} labelled, {len(labels.unique()):,} classes")
    for examples, message in (
        (listing.unreadable_folders, "folders cannot be read; what lies in them is left out"),
        (
            listing.labels_by_likeness,
            "files have the labels of a path that is written in another way (accents, spaces)",
        ),
        (listing.labels_without_file, "label rows have no file"),
        (listing.outside_layout, "files do not lie in LANGUAGE/ARTIST/ and have no labels"),
        (listing.undecodable_names, "files have names that are not UTF-8 and are left out"),
    ):
        if examples:
            lines.append(f"warning: {len(examples):,} {message}, e.g. {examples[0]}")
    return "\n".join(lines)
