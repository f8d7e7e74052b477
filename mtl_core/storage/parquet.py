"""Parquet: small tables to bytes, and tables of an older schema to today's."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def to_bytes(table: pa.Table, **options: Any) -> memoryview:
    """Encode a table as one Parquet file in memory, with the options of `pyarrow.parquet.write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return memoryview(sink.getvalue())


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and types. A nullable column that the table lacks is null in every row.

    Raises:
        ValueError: the table has a column that `schema` lacks, or lacks one that is not nullable.
        pa.ArrowInvalid, pa.ArrowNotImplementedError: a column cannot be cast to its type.
    """
    unknown = [name for name in table.column_names if name not in schema.names]
    missing = [field.name for field in schema if not field.nullable and field.name not in table.column_names]
    if unknown or missing:
        raise ValueError(f"unknown columns {unknown}, missing columns {missing}: expected {schema.names}")
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
