"""Data files are written completely or not at all, and their statistics hide no row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from nights import NOW, a_failure, a_tag, night

from mtl_core.schema import TAGS
from mtl_core.storage.location import Location
from mtl_core.tables import data_files, delta


def test_file_statistics_hide_no_row(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    unusual = {"artist": None, "content_id": None, "tagged_at": NOW.replace(microsecond=999_999)}
    night(out, "1", [a_tag("a"), a_tag("b") | unusual], [a_failure("f"), a_failure("g", permanent=False)])
    night(
        out, "2", [a_tag("y", "n", run="2") | {"artist": "z", "duration_s": 1.5}], [a_failure("h") | {"message": None}]
    )
    for name, schema in delta.TABLE_SCHEMAS.items():
        table = delta.open_table(out, name)
        assert table is not None
        dataset = table.to_pyarrow_dataset()
        rows = dataset.to_table()
        for field in schema:
            if pa.types.is_nested(field.type):
                continue
            for value in set(rows[field.name].to_pylist()):
                condition = ds.field(field.name).is_null() if value is None else ds.field(field.name) == value
                assert dataset.count_rows(filter=condition) == rows[field.name].to_pylist().count(value), (field, value)
    tags = delta.open_table(out, "tags")
    assert tags is not None and len(tags.file_uris(file_pruning_predicate="track_id = 'y'")) == 1


def test_a_file_is_written_completely_or_not_at_all(root: str) -> None:
    out = Location(root)

    def tables_until_an_error() -> Any:
        yield pa.Table.from_pylist([a_tag("a")], schema=TAGS)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        data_files.write_files(tables_until_an_error(), out / "tags", "r", TAGS)
    assert list((out / "tags").walk()) == []
