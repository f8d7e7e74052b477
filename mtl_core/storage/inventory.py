"""Inventory: the list of a bucket's objects that S3 Inventory writes every day or week, as CSV or Parquet.

`manifest.json` names the files of the list. In CSV the keys are URL-encoded, in Parquet they are not. On S3 the files
lie where `manifest.json` says; on a disk in `../data`, as a copy of the inventory's folder has them.
"""

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mtl_core.errors import InputError, one_line
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import S3, Location
from mtl_core.storage.sql import insert

FORMATS = ("CSV", "Parquet")
#: Field of the inventory, as the schema of its CSV files names it -> the column of its Parquet files.
_COLUMNS = {
    "Key": pa.field("key", pa.string()),
    "Size": pa.field("size", pa.int64()),
    "ETag": pa.field("e_tag", pa.string()),
    "IsLatest": pa.field("is_latest", pa.bool_()),  # this and the next only in an inventory of all versions
    "IsDeleteMarker": pa.field("is_delete_marker", pa.bool_()),
}
_NEEDED = ("Key", "Size", "ETag")
_ROWS_PER_BATCH = 65_536
_CSV_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a `manifest.json` says."""

    location: Location
    bucket: str  # whose objects it lists
    created_at: datetime
    file_format: str  # one of `FORMATS`
    csv_fields: list[str]  # in the order of CSV files
    files: list[Location]


def open_inventory(location: Location) -> Inventory:
    """Read a `manifest.json`.

    Raises:
        InputError: it cannot be read, is no `manifest.json` of an inventory, or names files of another format.
    """
    check_reachable(location)
    with as_input_error(location):
        content = location.read_bytes()
    try:
        manifest = json.loads(content)
        keys = [str(file["key"]) for file in manifest["files"]]
        folder = Location(f"{S3}{manifest['destinationBucket'].removeprefix('arn:').rpartition(':')[2]}")
        if not location.on_s3:
            folder = Location(posixpath.dirname(posixpath.dirname(location.uri))) / "data"
            keys = [posixpath.basename(key) for key in keys]
        inventory = Inventory(
            location=location,
            bucket=manifest["sourceBucket"],
            created_at=datetime.fromtimestamp(int(manifest["creationTimestamp"]) / 1000, UTC),
            file_format=manifest["fileFormat"],
            csv_fields=[name.strip() for name in manifest["fileSchema"].split(",")],
            files=[folder / key for key in keys],
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{location} is not the manifest.json of an S3 Inventory: {type(error).__name__}: {one_line(error)}"
        ) from None
    if inventory.file_format not in FORMATS:
        raise InputError(f"{location}: fileFormat {inventory.file_format!r}: allowed are {', '.join(FORMATS)}")
    return inventory


def load_files(database: duckdb.DuckDBPyConnection, inventory: Inventory, folder: Location) -> None:
    """Append the newest versions of the objects below a folder on S3 to the table `files` (see `object_listing.FILES`).

    Keys that end with `/` are left out: they stand for folders.

    Raises:
        InputError: the inventory is of another bucket, lacks a column, or a file of it cannot be read.
    """
    if not folder.on_s3 or folder.bucket != inventory.bucket:
        raise InputError(f"{inventory.location} lists {S3}{inventory.bucket}, but the catalogue is {folder}")
    prefix = folder.prefix
    key_text = "url_decode(replace(key, '+', ' '))" if inventory.file_format == "CSV" else "key"
    for file in inventory.files:
        with as_input_error(file), file.open_arrow() as stream:
            try:
                names, batches = _open_file(inventory, stream)
                of_version = {"is_latest": "is_latest", "is_delete_marker": "NOT is_delete_marker"}
                newest = " AND ".join(test for name, test in of_version.items() if name in names) or "true"
                query = f"""
                    SELECT substr(path, {len(prefix) + 1}), trim(e_tag, '"'), size
                    FROM (SELECT {key_text} AS path, * FROM batch WHERE {newest})
                    WHERE starts_with(path, $prefix) AND NOT ends_with(path, '/')
                """
                insert(database, "files", batches, query, {"prefix": prefix})
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, duckdb.InvalidInputException) as error:
                kind = inventory.file_format
                raise InputError(f"{file} cannot be read as {kind} of an inventory: {one_line(error)}") from None


def _open_file(inventory: Inventory, stream: Any) -> tuple[list[str], Iterator[pa.Table]]:
    """The names of the `_COLUMNS` that a file has, and its rows."""
    if inventory.file_format == "Parquet":
        file = pq.ParquetFile(stream)
        columns = file.schema_arrow.names
    else:
        of_field = {field: column.name for field, column in _COLUMNS.items()}
        columns = [of_field.get(field, field) for field in inventory.csv_fields]
    schema = pa.schema([column for column in _COLUMNS.values() if column.name in columns])
    if missing := [field for field in _NEEDED if _COLUMNS[field].name not in columns]:
        raise InputError(f"{inventory.location} has no field {missing[0]}: add it to the inventory")
    if inventory.file_format == "Parquet":
        batches = file.iter_batches(_ROWS_PER_BATCH, columns=schema.names)
    else:
        batches = pyarrow.csv.open_csv(
            pa.CompressedInputStream(stream, "gzip"),
            read_options=pyarrow.csv.ReadOptions(column_names=columns, block_size=_CSV_BLOCK_BYTES),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=schema.names, column_types=schema),
        )
    # Texts may be binary in Parquet, and the order of its columns is the file's.
    return schema.names, (pa.Table.from_batches([batch]).select(schema.names).cast(schema) for batch in batches)
