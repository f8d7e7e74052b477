"""Small tables round-trip through bytes, and conform to a newer schema."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_core.storage.parquet import conform, to_bytes


def test_a_table_round_trips_through_bytes() -> None:
    table = pa.table({"a": [1, 2, 3]})
    data = to_bytes(table, row_group_size=2)
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 2
    assert pq.read_table(pa.BufferReader(data)) == table


def test_missing_nullable_columns_become_null() -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.list_(pa.string())), ("c", pa.float32())])
    table = conform(pa.table({"c": pa.array([0.5, None]), "a": pa.array([1, 2], pa.int32())}), schema)
    assert table.schema == schema
    assert table.to_pydict() == {"a": [1, 2], "b": [None, None], "c": [0.5, None]}
    with pytest.raises(ValueError, match=r"missing columns \['a'\]"):
        conform(table.select(["c"]), schema)
    with pytest.raises(ValueError, match=r"unknown columns \['d'\]"):
        conform(table.append_column("d", pa.nulls(2)), schema)
