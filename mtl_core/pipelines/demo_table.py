"""The last output of `make demo`: the tags of the held-out songs beside their labels.

python -m mtl_core.pipelines.demo_table FOLDER    FOLDER is the one that `make demo` fills
"""

import sys

from mtl_core.dataset import manifest
from mtl_core.errors import InputError
from mtl_core.inference import artifact
from mtl_core.storage.location import Location
from mtl_core.tables import delta


def held_out_tags(folder: Location) -> str:
    """A line for each track of the test split, and the number of correct tags.

    Raises:
        InputError: `make demo` has not filled the folder.
    """
    table = delta.open_table(folder / "tagged", "tags")
    if table is None:
        raise InputError(f"{folder / 'tagged'}: there are no tags, run `make demo`")
    labels = manifest.read(folder / "manifest.parquet").select(["track_id", "artist", "language"])
    splits = artifact.load_splits(folder / "model")
    tags = table.to_pyarrow_table().select(["track_id", *_TAG_COLUMNS])
    labels = labels.rename_columns(["track_id", "true_artist", "true_language"])
    rows = tags.join(labels, "track_id").join(splits, "track_id").sort_by("track_id").to_pylist()
    test = [row for row in rows if row["split"] == "test"]
    lines = [_table_row("held-out track", "artist", "tagged as", "", "language", "tagged as", "")]
    lines += [_table_row(row["track_id"], *_cells(row, "artist"), *_cells(row, "language")) for row in test]
    correct = [
        f"{task} {sum(row[task] == row[f'true_{task}'] for row in test)} of {len(test)}"
        for task in ("artist", "language")
    ]
    return "\n".join([*lines, "", f"correct on songs that were not trained on: {', '.join(correct)}"])


_TAG_COLUMNS = ("artist", "artist_confidence", "language", "language_confidence")


def _cells(row: dict, task: str) -> tuple[str, str, str]:
    return row[f"true_{task}"], row[task] or "unknown", f"{row[f'{task}_confidence']:.2f}"


def _table_row(*cells: str) -> str:
    widths = (34, 22, 22, 6, 10, 10, 6)
    return "".join(f"{cell[: width - 1]:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


if __name__ == "__main__":
    print(held_out_tags(Location(sys.argv[1])))
