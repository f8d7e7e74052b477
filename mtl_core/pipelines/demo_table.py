"""The last output of `make demo`: what the fold models say of songs that they did not train on, beside the labels.

python -m mtl_core.pipelines.demo_table FOLDER    FOLDER is the one that `make demo` fills
"""

import sys
from collections.abc import Iterable
from typing import Any

from mtl_core.errors import InputError
from mtl_core.inference.artifacts import artifact
from mtl_core.storage.location import Location

SHOWN = 12  # songs of known artists, and as many of unknown ones; of an artist one


def out_of_fold_tags(folder: Location) -> str:
    """Some songs of known and of unknown artists with their tags, and how many of all such songs are named and right.

    Raises:
        InputError: `make demo` has not filled the folder.
    """
    table = artifact.load_artifact(folder / "model").out_of_fold
    if table is None:
        raise InputError(f"{folder / 'model'}: the model is not cross-fitted, run `make demo`")
    rows = sorted((row for row in table.to_pylist() if row["n_segments"]), key=lambda row: row["track_id"])
    lines = []
    for known, title in ((True, "new song of a known artist"), (False, "song of an unknown artist")):
        of_kind = [row for row in rows if row["known"] == known]
        lines += [_table_row(title, "artist", "tagged as", "", "language", "tagged as", "")]
        lines += [
            _table_row(row["track_id"], *_cells(row, "artist"), *_cells(row, "language")) for row in _some(of_kind)
        ]
        lines += [f"{task} of all {len(of_kind)}: {_counts(of_kind, task)}" for task in ("artist", "language")]
        lines += [""]
    return "\n".join(lines[:-1])


def _some(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    first_of_artist: dict[str, dict[str, Any]] = {}
    for row in rows:
        first_of_artist.setdefault(row["artist"], row)
    return list(first_of_artist.values())[:SHOWN]


def _counts(rows: list[dict[str, Any]], task: str) -> str:
    named = [row for row in rows if row[f"{task}_tag"] is not None]
    right = sum(row[f"{task}_tag"] == row[task] for row in named)
    return f"{len(named)} named, {right} of these right, {len(rows) - len(named)} left unnamed"


def _cells(row: dict[str, Any], task: str) -> tuple[str, str, str]:
    return row[task] or "none", row[f"{task}_tag"] or "unknown", f"{row[f'{task}_top'][0]['probability']:.2f}"


def _table_row(*cells: str) -> str:
    widths = (34, 22, 22, 6, 10, 10, 6)
    return "".join(f"{cell[: width - 1]:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


if __name__ == "__main__":
    print(out_of_fold_tags(Location(sys.argv[1])))
