"""The tables have the columns of their schemas, and are opened at one moment."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from nights import a_failure, a_tag, night, table_rows

from mtl_core.storage.location import Location
from mtl_core.tables import delta


def test_the_tables_have_the_columns_of_their_schema(root: str) -> None:
    out = Location(root)
    night(out, "1", [a_tag("a")], [a_failure("b")])
    for name, schema in delta.TABLE_SCHEMAS.items():
        table = DeltaTable((out / name).uri, storage_options=delta.storage_options(out))
        for field, column in zip(schema, pa.schema(table.schema().to_arrow()), strict=True):
            assert field.name == column.name and field.type.equals(column.type), (field, column)
    assert table_rows(out, "tags") == [a_tag("a")]


def test_a_snapshot_has_both_tables_at_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, opened = Location(str(tmp_path)), []
    assert delta.read_snapshot(out) == (None, None)
    night(out, "1", [a_tag("a")], [a_failure("b")])
    open_table = delta.open_table

    def open_during_a_commit(root: Location, name: str, version: int | None = None) -> DeltaTable | None:
        opened.append(name)
        if len(opened) == 2:  # b is tagged between the opening of the tags and of the failures
            monkeypatch.setattr(delta, "open_table", open_table)
            night(out, "2", [a_tag("b")], [])
            monkeypatch.setattr(delta, "open_table", open_during_a_commit)
        return open_table(root, name, version)

    monkeypatch.setattr(delta, "open_table", open_during_a_commit)
    tags, failures = delta.read_snapshot(out)
    assert tags is not None and failures is not None
    assert tags.to_pyarrow_table()["track_id"].to_pylist() == ["a", "b"] or tags.count() == 2
    assert failures.count() == 0 and len(opened) == 6


def test_the_snippets_of_the_documentation_run(root: str) -> None:
    pytest.importorskip("polars")
    root = root.replace("some place", "out")  # polars 2.1 does not find a table under a path with a space
    out = Location(root)
    night(out, "1", [a_tag(i) for i in "ab"], [a_failure("c")])
    night(out, "2", [a_tag("a", "n", run="2"), a_tag("d", run="2")], [])
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    names: dict[str, Any] = {"OUT": root}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(snippet, names)
    assert sorted(names["tracks"]["track_id"]) == ["a", "b", "d"] and len(names["one_track"]) == 1
    assert names["by_language"]["tracks"].sum() == len(names["tagged"]) == len(names["earlier"]) == 3
    assert len(names["few"]) == 3 and names["rows_of_tags"].count_rows() == 3
    assert sorted(names["changed"]["track_id"].to_pylist()) == ["a", "d"]
    assert len(names["added"]) == 2 and len(names["kept"]) == 1, "the new rows, and those beside the old row of a"
    (kept,) = (Location(uri.removeprefix("file://")) for uri in names["kept"])
    with kept.open_arrow() as file:
        assert pq.read_table(file, columns=["track_id", "run_id"]).to_pylist() == [{"track_id": "b", "run_id": "r"}]
    assert sorted(names["before"]["run_id"]) == sorted(names["polars_before"]["run_id"]) == ["r", "r"]
    assert len(names["failed"]) == 1
