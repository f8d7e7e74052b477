"""List a catalogue and join its labels: the first job. A listing is one request after another, so no Ray is started
for it.
"""

from collections import Counter

from mtl_core.dataset import manifest
from mtl_core.storage.checks import check_writable
from mtl_core.storage.location import Location


def build_manifest(
    catalogue: Location, labels: Location | None, out: Location, *, labels_from_folders: bool = False
) -> str:
    """Write the manifest of `catalogue` to `out`, a Parquet file.

    Returns:
        A summary for people.

    Raises:
        InputError: see `manifest.build`.
    """
    check_writable(out, folder=False)
    built = manifest.build_from(catalogue, labels, from_folders=labels_from_folders)
    manifest.write(built.table, out)
    table = built.table
    kinds = Counter(uri.rpartition(".")[2].lower() for uri in table["uri"].to_pylist())
    lines = [
        f"{len(table):,} tracks, {sum(table['size_bytes'].to_pylist()) / 1e9:.2f} GB -> {out}",
        "formats: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(8)),
        *(
            f"{task}: {len(table[task].drop_null()):,} labelled, {len(table[task].unique().drop_null()):,} classes"
            for task in ("artist", "language")
        ),
    ]
    if built.labels_without_file:
        lines.append(
            f"warning: {len(built.labels_without_file):,} label rows have no file, {built.labels_without_file[0]!r} for one"
        )
    if built.outside_layout:
        lines.append(
            f"warning: {len(built.outside_layout):,} files do not lie in LANGUAGE/ARTIST/ and have no labels, "
            f"{built.outside_layout[0]!r} for one"
        )
    if built.undecodable_names:
        lines.append(
            f"warning: {len(built.undecodable_names):,} files have names that are no UTF-8, {built.undecodable_names[0]} for one"
        )
    return "\n".join(lines)
