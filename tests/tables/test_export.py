"""The exported file has the current tags."""

import pyarrow as pa
import pyarrow.parquet as pq
from nights import a_tag, night

from mtl_core.schema import TAGS
from mtl_core.storage.location import Location
from mtl_core.tables import export


def test_the_export_has_the_current_tags(root: str) -> None:
    out = Location(root)
    assert export.export_parquet(out, out / "empty.parquet") == 0
    night(out, "1", [a_tag("a"), a_tag("b")], [])
    night(out, "2", [a_tag("a", "n", run="2")], [], "n")
    assert export.export_parquet(out, out / "tags.parquet") == 2
    rows = pq.read_table(pa.BufferReader((out / "tags.parquet").read_bytes()))
    assert rows.schema == TAGS
    assert {row["track_id"]: row["run_id"] for row in rows.to_pylist()} == {"a": "2", "b": "r"}
