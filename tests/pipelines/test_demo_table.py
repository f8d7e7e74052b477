"""The table at the end of `make demo`."""

from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from builders.models import save

from mtl_core.dataset import manifest
from mtl_core.errors import InputError
from mtl_core.inference.artifact import Artifact
from mtl_core.pipelines.demo_table import held_out_tags
from mtl_core.schema import MANIFEST, TAGS
from mtl_core.storage.location import Location

#: track_id, split, labels, tags with their confidences. Ben's artist is wrong, Cy's language is unknown.
TRACKS = [
    ("ada.wav", "train", "Ada", "xx", "Ada", 0.99, "xx", 0.98),
    ("ben.wav", "test", "Ben", "xx", "Ada", 0.61, "xx", 0.87),
    ("cy.wav", "test", "Cy", "yy", "Cy", 0.76, None, 0.4),
]


def test_a_line_for_each_held_out_track_and_the_number_of_correct_tags(tmp_path: Path, untrained: Artifact) -> None:
    folder = Location(str(tmp_path))
    with pytest.raises(InputError, match="there are no tags, run `make demo`"):
        held_out_tags(folder)
    names = ("track_id", "split", "artist", "language")
    labels = [dict(zip(names, track[:4], strict=True)) for track in TRACKS]
    rows = [row | {"uri": f"/{row['track_id']}"} for row in labels]
    manifest.write(pa.Table.from_pylist(rows, schema=MANIFEST), folder / "manifest.parquet")
    save(untrained, folder / "model", {row["track_id"]: row["split"] for row in labels})
    columns = ("artist", "artist_confidence", "language", "language_confidence")
    tags = [{"track_id": track[0]} | dict(zip(columns, track[4:], strict=True)) for track in TRACKS]
    fields = pa.schema([TAGS.field(name).with_nullable(True) for name in ("track_id", *columns)])
    deltalake.write_deltalake(str(tmp_path / "tagged" / "tags"), pa.Table.from_pylist(tags, schema=fields))
    heading, *lines = held_out_tags(folder).splitlines()
    assert heading.split() == ["held-out", "track", "artist", "tagged", "as", "language", "tagged", "as"]
    assert [line.split() for line in lines] == [
        ["ben.wav", "Ben", "Ada", "0.61", "xx", "xx", "0.87"],
        ["cy.wav", "Cy", "Cy", "0.76", "yy", "unknown", "0.40"],
        [],
        "correct on songs that were not trained on: artist 1 of 2, language 1 of 2".split(),
    ]
    assert lines[0].index("0.61") == lines[1].index("0.76"), "the columns are aligned"
