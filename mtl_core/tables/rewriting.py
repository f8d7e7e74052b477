"""Rewriting: new data files from the rows of old ones, with some rows removed, or small files merged.

Files are read one row group at a time. A file that is older than a column of the table has null in that column.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake import DeltaTable

from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import conform
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.sql import create_table, fetch_table, open_database, scan_columns
from mtl_core.tables.data_files import ROWS_PER_FILE, DataFile, active_files, read_track_ids, write_files

_PARALLEL_WRITES = 2


@dataclass(frozen=True)
class FileRemainder:
    """The rows of a file that stay when others are removed."""

    file: DataFile
    removed_rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # row numbers

    @property
    def n_rows(self) -> int:
        """Number of rows that stay."""
        return self.file.n_rows - len(self.removed_rows)


def rewrite_without(
    root: Location, table: DeltaTable, tracks: Sequence[pa.Table | RowFile], name: str
) -> tuple[list[DataFile], list[DataFile]]:
    """Rewrite the files that contain some of these tracks, without them. The log is not changed.

    Args:
        root: of the table.
        table: at the version to change.
        tracks: with a column `track_id`; those that the table does not contain are ignored.
        name: part of the new files' names.

    Returns:
        The files to remove from the table, and the new files to add to it.
    """
    return rewrite_remainders(root, table, find_rows(root, active_files(table), tracks), name)


def rewrite_remainders(
    root: Location, table: DeltaTable, remainders: list[FileRemainder], name: str
) -> tuple[list[DataFile], list[DataFile]]:
    """Write the rows of some files of a table that stay to new files; arguments and result as in `rewrite_without`."""
    non_empty = [remainder for remainder in remainders if remainder.n_rows]
    new_files = rewrite_files(non_empty, root, name, pa.schema(table.schema().to_arrow()))
    return [remainder.file for remainder in remainders], new_files


def find_rows(root: Location, files: list[DataFile], tracks: Sequence[pa.Table | RowFile]) -> list[FileRemainder]:
    """The files that contain some of these tracks. Only those whose range of track_ids contains one are read."""
    if not files or not any(map(len, tracks)):
        return []
    with open_database() as connection:
        create_table(connection, "superseded", tracks, ["track_id"])
        ranges = {
            "file": pa.array(range(len(files)), pa.int32()),
            "first": pa.array([file.min_values.get("track_id", "") for file in files], pa.string()),
            "last": pa.array([file.max_values.get("track_id") for file in files], pa.string()),
        }
        connection.register("ranges", pa.table(ranges))
        candidates = connection.sql(
            "SELECT file FROM ranges ASOF JOIN superseded ON first <= track_id"
            " WHERE last IS NULL OR track_id <= last ORDER BY file"
        ).fetchall()
        may_contain = [files[number] for (number,) in candidates]
        return _match_rows(connection, root, may_contain, "SEMI JOIN superseded")


def find_other_rows(
    root: Location, files: list[DataFile], kept: pa.Table | pyarrow.dataset.Dataset
) -> list[FileRemainder]:
    """The files that contain other tracks than those in the column `track_id` of `kept`. All files are read."""
    with open_database() as connection:
        connection.register("kept", scan_columns(kept, ["track_id"]))
        return _match_rows(connection, root, files, "ANTI JOIN kept")


def _match_rows(
    connection: duckdb.DuckDBPyConnection, root: Location, files: list[DataFile], join: str
) -> list[FileRemainder]:
    """The files with rows that a join with another relation of the database, on track_id, leaves."""
    schema = pa.schema([("file", pa.int32()), ("row", pa.int32()), ("track_id", pa.string())])
    batches = (
        pa.record_batch([np.full(len(part), number, np.int32), np.arange(len(part), dtype=np.int32), part], schema)
        for number, part in enumerate(read_track_ids(root, files))
    )
    connection.register("rows", pa.RecordBatchReader.from_batches(schema, batches))
    matches = fetch_table(connection, f"SELECT file, row FROM rows {join} USING (track_id) ORDER BY file, row")
    file_numbers, starts = np.unique(matches["file"].to_numpy(), return_index=True)
    rows_of_files = np.split(matches["row"].to_numpy(), starts)[1:]
    return [FileRemainder(files[number], rows) for number, rows in zip(file_numbers, rows_of_files, strict=True)]


def rewrite_files(remainders: list[FileRemainder], root: Location, name: str, schema: pa.Schema) -> list[DataFile]:
    """Write the remaining rows of some files to new files; small files are merged. A few row groups are in memory.

    Args:
        remainders: the rows.
        root, schema: of the table.
        name: part of the new files' names.
    """
    groups: list[list[FileRemainder]] = []
    for remainder in remainders:
        if groups and sum(other.n_rows for other in groups[-1]) + remainder.n_rows <= ROWS_PER_FILE:
            groups[-1].append(remainder)
        else:
            groups.append([remainder])

    def rewrite(number: int) -> list[DataFile]:
        tables = (table for remainder in groups[number] for table in read_remainder(root, remainder, schema))
        return write_files(tables, root, f"{name}-{number:05}", schema)

    return [file for files in bounded_map(rewrite, range(len(groups)), _PARALLEL_WRITES) for file in files]


def read_remainder(root: Location, remainder: FileRemainder, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a file that stay, as `read_rows` gives them."""
    stays = np.ones(remainder.file.n_rows, bool)
    stays[remainder.removed_rows] = False
    return read_rows(root / remainder.file.path, np.flatnonzero(stays), schema)


def read_rows(file: Location, rows: np.ndarray, schema: pa.Schema) -> Iterator[pa.Table]:
    """Some rows of a file, by their numbers in rising order, one row group at a time; missing columns are null."""
    with file.open_arrow() as source:
        parquet = pq.ParquetFile(source, pre_buffer=file.on_s3)
        start = 0
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            chosen = rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)] - start
            if len(chosen):
                table = conform(parquet.read_row_group(group, use_threads=False), schema)
                yield table if len(chosen) == len(table) else table.take(pa.array(chosen))
            start = end
