"""Part: one Parquet file of a table, under the table's root, rows in the order in which they were tagged.

A part is written as a stream, whole or not at all, under a name that no other has, and is never changed. Its log entry
tells the least and the greatest value of each column, by which readers and commits pass it over. Sizes are in bytes.

Contents: `Part`, `live` (a table's parts), `write`, `rewrite` (the rows that stay of some parts), `rows`, `track_ids`.
"""

import contextlib
import json
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location

ROWS_PER_FILE = 262_144  # some 120 MB of tags: few enough files for a reader, small enough to rewrite
ROWS_PER_GROUP = 4_096  # 5 MB of tags: what is held in memory of a part
_REWRITERS = 2


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file of a table.

    A part has statistics for every column that is no list or, written by another program, for none: deltalake's
    `to_pyarrow_dataset` takes a column without any, beside one that has some, for one whose rows no filter finds.

    Args:
        path: relative to the table's root.
        size_bytes: of the file.
        n_rows: in it.
        least, greatest: {column: value} of the columns that are no lists and not null throughout.
        n_null: {column: rows that are null} of the columns that are no lists.
    """

    path: str
    size_bytes: int
    n_rows: int
    min_values: dict[str, Any]
    max_values: dict[str, Any]
    null_counts: dict[str, int]

    def add(self, *, data_change: bool = True) -> AddAction:
        """The log's entry by which readers see it."""
        statistics = {"minValues": self.min_values, "maxValues": self.max_values, "nullCount": self.null_counts}
        known = {"numRecords": self.n_rows} | (statistics if self.null_counts else {})
        return AddAction(self.path, self.size_bytes, {}, _now_ms(), data_change, json.dumps(known, default=_as_json))

    def remove(self, *, data_change: bool = True) -> RemoveAction:
        """The log's entry by which readers see it no more."""
        return RemoveAction(self.path, data_change, _now_ms(), self.size_bytes, {})


def _now_ms() -> int:
    return int(time.time() * 1000)


def _as_json(at: datetime) -> str:
    """Delta's form of a timestamp: cut off, not rounded, to milliseconds, which its readers allow for."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def active_files(table: DeltaTable) -> list[DataFile]:
    """The parts of a table at the version that is open, by their first track_id."""

    def about(action: dict[str, Any], kind: str) -> dict[str, Any]:
        of_kind = {key.removeprefix(kind): value for key, value in action.items() if key.startswith(kind)}
        return {column: value for column, value in of_kind.items() if value is not None}

    parts = [
        DataFile(
            path=action["path"],
            size_bytes=action["size_bytes"],
            n_rows=action["num_records"],
            min_values=about(action, "min."),
            max_values=about(action, "max."),
            null_counts=about(action, "null_count."),
        )
        for action in pa.table(table.get_add_actions(flatten=True)).to_pylist()
    ]
    return sorted(parts, key=lambda part: (part.min_values.get("track_id", ""), part.path))


def write_files(tables: Iterable[pa.Table], root: Location, name: str, schema: pa.Schema) -> list[DataFile]:
    """Write rows, in their order, as parts of `ROWS_PER_FILE` rows or a little more; none where there are no rows.

    Args:
        tables: of `schema`, each small: they are held in memory until they make up a row group.
        root: of the table.
        name: what the parts' names begin with; it may be used again.

    Raises:
        ValueError: a name with other characters than letters, digits, `-`, `_` and `.`.
    """
    if quote(name) != name:  # the log has paths percent-encoded
        raise ValueError(f"{name!r} must have no characters but letters, digits, '-', '_' and '.'")
    waiting = (table for table in tables if len(table))
    attempt = uuid.uuid4().hex[:8]  # a paused run that wakes up never writes over its successor's files
    parts: list[DataFile] = []
    for first in waiting:
        file = root / f"part-{name}-{attempt}-{len(parts):05}.parquet"
        parts.append(write_file(_at_least(ROWS_PER_FILE, chain([first], waiting)), file, schema))
    return parts


def _at_least(n_rows: int, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The next tables, until they have so many rows."""
    while n_rows > 0 and (table := next(tables, None)) is not None:
        n_rows -= len(table)
        yield table


def write_file(tables: Iterator[pa.Table], file: Location, schema: pa.Schema) -> DataFile:
    """Write rows as one file; memory is a row group."""
    n_rows, least, greatest = 0, dict[str, Any](), dict[str, Any]()
    n_null = {field.name: 0 for field in schema if not pa.types.is_nested(field.type)}
    with _draft(file) as path:
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=_repeating(schema)) as writer:
            for group in iter(lambda: [*_at_least(ROWS_PER_GROUP, tables)], []):
                table = pa.concat_tables(group)
                writer.write_table(table, row_group_size=2 * ROWS_PER_GROUP)
                n_rows += len(table)
                for name in n_null:
                    n_null[name] += table[name].null_count
                    ends = pc.min_max(table[name]).as_py()
                    if ends["min"] is not None:
                        least[name] = min(least.get(name, ends["min"]), ends["min"])
                        greatest[name] = max(greatest.get(name, ends["max"]), ends["max"])
        size_bytes = path.stat().st_size
    return DataFile(
        path=file.name, size_bytes=size_bytes, n_rows=n_rows, min_values=least, max_values=greatest, null_counts=n_null
    )


def _repeating(schema: pa.Schema) -> list[str]:
    """The columns whose values repeat: a dictionary of track_ids or of floats is tried in vain, which costs time."""
    own = {"track_id", "uri", "content_id", "message"}
    flat = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in own]
    tops = [
        field.name for field in schema if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type)
    ]
    return [*flat, *(f"{name}.list.element.label" for name in tops)]


@contextlib.contextmanager
def _draft(file: Location) -> Iterator[Path]:
    """A local path whose file appears at `file` in one step when the body ends, and never if it does not."""
    if file.on_s3:
        with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
            path = Path(folder) / file.name
            yield path
            file.filesystem.put_file(str(path), file.path)
        return
    target = Path(file.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield path
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class FileRemainder:
    """What stays of a part.

    Args:
        part: to be read.
        dropped: numbers of the rows that do not stay, int.
    """

    part: DataFile
    dropped: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def n_rows(self) -> int:
        return self.part.n_rows - len(self.dropped)


def rewrite_files(kept: list[FileRemainder], root: Location, name: str, schema: pa.Schema) -> list[DataFile]:
    """Write the rows that stay of some parts as new ones, small ones together; memory is a few row groups."""
    groups: list[list[FileRemainder]] = []
    for one in kept:
        if groups and sum(other.n_rows for other in groups[-1]) + one.n_rows <= ROWS_PER_FILE:
            groups[-1].append(one)
        else:
            groups.append([one])

    def rewritten(number: int) -> list[DataFile]:
        tables = (group for one in groups[number] for group in _rows(root, one, schema))
        return write_files(tables, root, f"{name}-{number:05}", schema)

    return [part for parts in bounded_map(rewritten, range(len(groups)), _REWRITERS) for part in parts]


def iter_row_groups(root: Location, parts: list[DataFile], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of some parts, a row group at a time."""
    return (group for part in parts for group in _rows(root, FileRemainder(part), schema))


def _rows(root: Location, kept: FileRemainder, schema: pa.Schema) -> Iterator[pa.Table]:
    stays = np.ones(kept.part.n_rows, bool)
    stays[kept.dropped] = False
    file = root / kept.part.path
    with file.arrow_filesystem.open_input_file(file.path) as source:
        parquet = pq.ParquetFile(source, pre_buffer=file.on_s3)
        start = 0
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            if stays[start:end].any():
                table = parquet.read_row_group(group, use_threads=False).cast(schema)
                yield table if stays[start:end].all() else table.filter(pa.array(stays[start:end]))
            start = end


def read_track_ids(root: Location, parts: list[DataFile]) -> Iterator[pa.Array]:
    """The track_ids of each part, in the order of its rows."""

    def read(part: DataFile) -> pa.Array:
        file = root / part.path
        with file.arrow_filesystem.open_input_file(file.path) as source:
            return pq.read_table(source, columns=["track_id"], use_threads=False)["track_id"].combine_chunks()

    return bounded_map(read, parts)
