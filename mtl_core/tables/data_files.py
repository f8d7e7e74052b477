"""Data files: the Parquet files of a table. Rows are in the order in which they were tagged. Sizes are in bytes.

A file is written as a stream, atomically, under a unique name, and is never changed. Its log entry has the minimum and
maximum of each column that is not nested, so that readers and commits can skip the file.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location

ROWS_PER_FILE = 262_144  # about 120 MB of tags: few files for a reader, yet each is cheap to rewrite
ROWS_PER_GROUP = 4_096  # 5 MB of tags: the part of a file that is in memory at a time


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file of a table.

    It has statistics of every column that is not nested or, if another program wrote it, of none. If some columns have
    none, the `to_pyarrow_dataset` of deltalake 1.6.6 silently drops rows that match a filter on those columns.
    """

    path: str  # relative to the table's root
    size_bytes: int
    n_rows: int
    min_values: dict[str, Any]  # {column: value} of the columns that are neither nested nor null in all rows
    max_values: dict[str, Any]
    null_counts: dict[str, int]  # {column: number of null rows} of the columns that are not nested

    def with_null_columns(self, names: Iterable[str]) -> "DataFile":
        """The same file in a table that gained columns that are not nested: they are null in all of its rows."""
        if not self.null_counts:
            return self
        return replace(self, null_counts=self.null_counts | dict.fromkeys(names, self.n_rows))

    def add(self, *, data_change: bool = True) -> AddAction:
        """The log entry that adds the file to a table, or replaces the file's statistics."""
        statistics = {"minValues": self.min_values, "maxValues": self.max_values, "nullCount": self.null_counts}
        values = {"numRecords": self.n_rows} | (statistics if self.null_counts else {})
        encoded = json.dumps(values, default=_delta_timestamp)
        return AddAction(self.path, self.size_bytes, {}, int(time.time() * 1000), data_change, encoded)

    def remove(self, *, data_change: bool = True) -> RemoveAction:
        """The log entry that removes the file from a table."""
        return RemoveAction(self.path, data_change, int(time.time() * 1000), self.size_bytes, {})


def _delta_timestamp(value: datetime) -> str:
    """Delta's format of a timestamp, truncated to milliseconds. Readers of Delta allow for the truncation."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flat_columns(schema: pa.Schema) -> list[str]:
    """The columns that have statistics: those that are not nested."""
    return [field.name for field in schema if not pa.types.is_nested(field.type)]


def active_files(table: DeltaTable) -> list[DataFile]:
    """The files of a table at its open version, sorted by their first track_id."""

    def by_column(action: dict[str, Any], prefix: str) -> dict[str, Any]:
        values = {key.removeprefix(prefix): value for key, value in action.items() if key.startswith(prefix)}
        return {column: value for column, value in values.items() if value is not None}

    files = [
        DataFile(
            path=action["path"],
            size_bytes=action["size_bytes"],
            n_rows=action["num_records"],
            min_values=by_column(action, "min."),
            max_values=by_column(action, "max."),
            null_counts=by_column(action, "null_count."),
        )
        for action in pa.table(table.get_add_actions(flatten=True)).to_pylist()
    ]
    return sorted(files, key=lambda file: (file.min_values.get("track_id", ""), file.path))


def write_files(tables: Iterable[pa.Table], root: Location, name: str, schema: pa.Schema) -> list[DataFile]:
    """Write rows, in their order, as files of `ROWS_PER_FILE` rows or slightly more; none if there are no rows.

    Args:
        tables: small tables of `schema`; they are held in memory until they fill a row group.
        root, schema: of the table.
        name: part of the files' names; need not be unique.

    Raises:
        ValueError: the name has other characters than letters, digits, `-`, `_` and `.`.
    """
    if quote(name) != name:  # the log has percent-encoded paths
        raise ValueError(f"{name!r}: allowed are letters, digits, '-', '_' and '.'")
    pending = (table for table in tables if len(table))
    attempt = uuid.uuid4().hex[:8]  # a paused run that wakes up must not overwrite the files of the run after it
    files: list[DataFile] = []
    for first in pending:
        location = root / f"part-{name}-{attempt}-{len(files):05}.parquet"
        files.append(write_file(_take_rows(ROWS_PER_FILE, chain([first], pending)), location, schema))
    return files


def _take_rows(n_rows: int, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The next tables, until they have `n_rows` rows."""
    while n_rows > 0 and (table := next(tables, None)) is not None:
        n_rows -= len(table)
        yield table


def write_file(tables: Iterator[pa.Table], location: Location, schema: pa.Schema) -> DataFile:
    """Write the rows of small tables of `schema` as one file. One row group is in memory at a time."""
    n_rows, min_values, max_values = 0, dict[str, Any](), dict[str, Any]()
    null_counts = dict.fromkeys(flat_columns(schema), 0)
    with location.write_via() as path:
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=_dictionary_columns(schema)) as writer:
            for group in iter(lambda: [*_take_rows(ROWS_PER_GROUP, tables)], []):
                table = pa.concat_tables(group)
                writer.write_table(table, row_group_size=2 * ROWS_PER_GROUP)
                n_rows += len(table)
                for name in null_counts:
                    null_counts[name] += table[name].null_count
                    ends = pc.min_max(table[name]).as_py()
                    if ends["min"] is not None:
                        min_values[name] = min(min_values.get(name, ends["min"]), ends["min"])
                        max_values[name] = max(max_values.get(name, ends["max"]), ends["max"])
        size_bytes = path.stat().st_size
    return DataFile(
        path=location.name,
        size_bytes=size_bytes,
        n_rows=n_rows,
        min_values=min_values,
        max_values=max_values,
        null_counts=null_counts,
    )


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """The columns with repeated values. Trying a dictionary for track_ids or floats costs time and gains nothing."""
    unique = {"track_id", "uri", "content_id", "message"}
    flat = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in unique]
    tops = [field.name for field in schema if pa.types.is_list(field.type) and field.type.value_type.num_fields]
    return [*flat, *(f"{name}.list.element.label" for name in tops)]


def delete_files(files: Sequence[Location], check_lease: Callable[[], None]) -> None:
    """Delete files, a few at a time, roughly in their order. The lease is checked before and once in a while."""
    check_lease()
    for number, _ in enumerate(bounded_map(Location.delete, files), start=1):
        if number % 100 == 0:
            check_lease()


def dataset_of(root: Location, files: Sequence[DataFile]) -> pyarrow.dataset.Dataset:
    """Some files of the table at `root`, whether its log has them or not yet."""
    paths = [(root / file.path).path for file in files]
    return pyarrow.dataset.dataset(paths, format="parquet", filesystem=root.arrow_filesystem)


def read_track_ids(root: Location, files: list[DataFile]) -> Iterator[pa.Array]:
    """The track_ids (string) of each file of the table at `root`, in the order of its rows."""

    def read(file: DataFile) -> pa.Array:
        with (root / file.path).open_arrow() as source:
            return pq.read_table(source, columns=["track_id"], use_threads=False)["track_id"].combine_chunks()

    return bounded_map(read, files)
