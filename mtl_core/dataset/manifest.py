"""Manifest: the list of tracks to work on, one row a track, as a Parquet file or a folder of them.

Its columns are those of `schema.MANIFEST`; other columns are carried along. track_id and uri are required, and every
track_id occurs once.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from mtl_core.errors import InputError, one_line
from mtl_core.schema import MANIFEST, MANIFEST_REQUIRED
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import S3, Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.sql import open_database, scan_columns


def write(table: pa.Table, location: Location) -> None:
    """Write a manifest as one Parquet file."""
    with as_input_error(location):
        location.write_bytes(to_bytes(table, compression="zstd"))


def read(location: Location) -> pa.Table:
    """Read and check a manifest: a Parquet file or a folder of them.

    Returns:
        All `MANIFEST` columns (null where the file has none), then the carried columns in the order of the file.

    Raises:
        InputError: the manifest does not exist or is not Parquet, a required column is missing, or an id is empty or
            occurs twice.
    """
    rows = scan(location)
    with _as_input_error(location):
        return rows.to_table()


def scan(location: Location) -> pyarrow.dataset.Dataset:
    """Check a manifest like `read`, with the same errors, but do not load its rows: for millions of tracks."""
    check_reachable(location)
    with as_input_error(location):
        entry = location.filesystem.info(location.path)
        files = [location] if entry["type"] == "file" else location.files(".parquet")
        if not files:
            raise InputError(f"{location}: a folder without Parquet files is not a manifest")
        with _as_input_error(location):
            carried = pa.unify_schemas([_carried_columns(file) for file in files], promote_options="permissive")
            rows = pyarrow.dataset.dataset(
                [file.path for file in files],
                schema=pa.schema([*MANIFEST, *carried]),
                filesystem=location.arrow_filesystem,
                format="parquet",
            )
            check_ids(rows, location)
    return rows


@contextlib.contextmanager
def _as_input_error(location: Location) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, duckdb.Error) as error:
        raise InputError(f"{location} is not a Parquet manifest: {one_line(error)}") from None


def _carried_columns(file: Location) -> pa.Schema:
    """Check the columns of one file of a manifest; returns those that are not in `MANIFEST`."""
    schema = pq.read_schema(file.path, filesystem=file.arrow_filesystem)
    repeated = [name for name, count in Counter(schema.names).items() if count > 1]
    if repeated:
        raise InputError(f"{file} has two columns {repeated[0]!r}")
    missing = [name for name in MANIFEST_REQUIRED if name not in schema.names]
    if missing:
        raise InputError(f"{file} has no column {missing[0]!r}: a manifest needs {', '.join(MANIFEST_REQUIRED)}")
    for expected in MANIFEST:
        if expected.name in schema.names:
            actual = schema.field(expected.name).type
            if not _holds_values_of(actual, expected.type):
                raise InputError(f"{file}: column {expected.name!r} is {actual}, not {expected.type}")
    return pa.schema([field for field in schema if field.name not in MANIFEST.names])


def _holds_values_of(actual: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column of one type can be read as the other; text is never read as a number."""
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    if pa.types.is_string(expected):
        return actual in (pa.string(), pa.large_string(), pa.string_view(), pa.null())
    return pa.types.is_integer(actual) or pa.types.is_null(actual)


_COUNT_EMPTY = {name: f"count(*) FILTER (coalesce({name}, '') = '')" for name in MANIFEST_REQUIRED}
_WRONG_URI = f"NOT regexp_matches(uri, '^(/|file://|{S3}[^/])')"


def check_ids(rows: pyarrow.dataset.Dataset | pa.Table, location: Location) -> None:
    """Check that every row has a track_id and a uri, that no track_id occurs twice, and the form of the uris.

    Raises InputError, which names the location, where a check fails.
    """
    with open_database() as connection:
        connection.register("manifest", scan_columns(rows, list(MANIFEST_REQUIRED)))
        # Counting ten million hashes takes a third of the time and memory of counting as many strings.
        columns = f"count(*), count(DISTINCT hash(track_id)), min(uri) FILTER ({_WRONG_URI})"
        query = f"SELECT {columns}, {', '.join(_COUNT_EMPTY.values())} FROM manifest"
        n_rows, n_hashes, wrong_uri, *n_empty = connection.sql(query).fetchall()[0]
        for name, n in zip(MANIFEST_REQUIRED, n_empty, strict=True):
            if n:
                raise InputError(f"{location}: {n} rows without {name}: every row needs one")
        if n_hashes < n_rows:  # two ids may have the same hash, so the ids themselves decide
            connection.register("manifest", scan_columns(rows, ["track_id"]))
            repeated = "SELECT track_id FROM manifest GROUP BY track_id HAVING count(*) > 1"
            n_repeated, example = connection.sql(f"SELECT count(*), min(track_id) FROM ({repeated})").fetchall()[0]
            if n_repeated:
                raise InputError(f"{location}: {n_repeated} track_ids occur more than once, e.g. {example!r}")
        if wrong_uri is not None:
            raise InputError(f"{location}: uri {wrong_uri!r}: allowed are an absolute path and s3://bucket/key")
