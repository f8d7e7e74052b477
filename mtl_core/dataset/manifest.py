"""Manifest: the list of tracks to work on, one row a track.

It is a Parquet file, a folder of them, a folder of Hive partitions (`language=xx/…`), or a Delta table.
Its columns are those of `schema.MANIFEST`; other columns are carried along. track_id and uri are required, and every
track_id occurs once.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from mtl_core.errors import InputError, one_line
from mtl_core.schema import MANIFEST, MANIFEST_REQUIRED
from mtl_core.storage.checks import as_input_error, check_any_readable, check_reachable
from mtl_core.storage.location import S3, Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.sql import open_database, scan_columns
from mtl_core.tables.delta import open_dataset, open_delta

N_SAMPLED = 8  # tracks that are asked for before a night; the first that may be read is enough


def write(table: pa.Table, location: Location) -> None:
    """Write a manifest as one Parquet file."""
    with as_input_error(location):
        location.write_bytes(to_bytes(table, compression="zstd"))


def read(location: Location) -> pa.Table:
    """Read and check a manifest.

    Returns:
        All `MANIFEST` columns (null where the file has none), then the carried columns in the order of the file.

    Raises:
        InputError: the manifest does not exist or is not Parquet, a required column is missing, or an id is empty or
            occurs twice.
    """
    rows = scan(location)
    with _as_wrong_manifest(location):
        return rows.to_table()


def delta_version(location: Location) -> int | None:
    """The latest version of a manifest that is a Delta table; None: it is none. Raises InputError as `read`."""
    check_reachable(location)
    with as_input_error(location), _as_wrong_manifest(location):
        table = open_delta(location) if (location / "_delta_log").exists() else None
    return None if table is None else int(table.version())


def scan(location: Location, version: int | None = None) -> pyarrow.dataset.Dataset:
    """Check a manifest like `read`, with the same errors, but do not load its rows: for millions of tracks.

    Args:
        version: of `delta_version`; by default the latest.
    """
    if version is None:
        version = delta_version(location)
    with as_input_error(location), _as_wrong_manifest(location):
        rows = _scan_files(location) if version is None else _scan_delta(location, version)
        check_ids(rows, location)
    return rows


def _scan_delta(location: Location, version: int) -> pyarrow.dataset.Dataset:
    table = open_delta(location, version)
    assert table is not None, "delta_version found it"
    carried = _carried_columns(pa.schema(table.schema().to_arrow()), location)
    return open_dataset(location, table, pa.schema([*MANIFEST, *carried]))


def _scan_files(location: Location) -> pyarrow.dataset.Dataset:
    files, keys = [location], set[str]()
    if location.filesystem.info(location.path)["type"] != "file":
        paths = [path.split("/") for path, _ in location.walk() if path.endswith(".parquet")]
        paths = [
            path for path in paths if not path[-1].startswith(("_", ".")) and all("=" in name for name in path[:-1])
        ]
        files = [location / "/".join(path) for path in paths]
        keys = {name.partition("=")[0] for path in paths for name in path[:-1]}
        if not files:
            raise InputError(f"{location}: a folder without Parquet files is not a manifest")
    partitions = pa.schema([(key, pa.string()) for key in sorted(keys)])
    schemas = [_carried_columns(_read_schema(file, partitions), file) for file in files]
    carried = pa.unify_schemas(schemas, promote_options="permissive")
    return pyarrow.dataset.dataset(
        [file.path for file in files],
        schema=pa.schema([*MANIFEST, *carried]),
        filesystem=location.arrow_filesystem,
        format="parquet",
        partitioning=pyarrow.dataset.partitioning(partitions, flavor="hive") if keys else None,
        partition_base_dir=location.path,  # the folders above may look like partitions, too
    )


def _read_schema(file: Location, partitions: pa.Schema) -> pa.Schema:
    """The columns of a file, and those that the names of its folders give."""
    schema = pq.read_schema(file.path, filesystem=file.arrow_filesystem)
    if both := set(schema.names) & set(partitions.names):
        raise InputError(f"{file}: {min(both)!r} is a column and the key of a folder: rename one")
    return pa.schema([*schema, *partitions])


@contextlib.contextmanager
def _as_wrong_manifest(location: Location) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, duckdb.Error, DeltaError) as error:
        raise InputError(f"{location} cannot be read as a manifest: {one_line(error)}") from None


def _carried_columns(schema: pa.Schema, file: Location) -> pa.Schema:
    """Check the columns of one file of a manifest; returns those that are not in `MANIFEST`."""
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
    # pandas makes numbers floats where one is missing; a part of a byte is an error when it is read
    return pa.types.is_integer(actual) or pa.types.is_floating(actual) or pa.types.is_null(actual)


_COUNT_EMPTY = {name: f"count(*) FILTER (coalesce({name}, '') = '')" for name in MANIFEST_REQUIRED}
_WRONG_URI = f"NOT regexp_matches(uri, '^(/|file://|{S3}[^/])')"


def check_ids(rows: pyarrow.dataset.Dataset | pa.Table, location: Location) -> None:
    """Check that every row has a track_id and a uri, that no track_id occurs twice, and the form of uris and sizes.

    Raises InputError, which names the location, where a check fails.
    """
    with open_database() as connection:
        connection.register("manifest", scan_columns(rows, [*MANIFEST_REQUIRED, "size_bytes"]))
        # Counting ten million hashes takes a third of the time and memory of counting as many strings.
        columns = f"count(*), count(DISTINCT hash(track_id)), min(uri) FILTER ({_WRONG_URI}), max(size_bytes)"
        query = f"SELECT {columns}, {', '.join(_COUNT_EMPTY.values())} FROM manifest"  # reading a size checks it
        n_rows, n_hashes, wrong_uri, _, *n_empty = connection.sql(query).fetchall()[0]
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


def check_tracks_readable(rows: pyarrow.dataset.Dataset | pa.Table, allowed: Sequence[Location] = ()) -> None:
    """Raise InputError if none of `N_SAMPLED` tracks on S3, chosen by the hash of their ids, may be read.

    A single track that is forbidden becomes a row of the failures. If all are, the identity lacks a permission.

    Args:
        rows: a manifest.
        allowed: the places that tracks may be in; others are not asked for. Empty: anywhere.
    """
    with open_database() as connection:
        connection.register("manifest", scan_columns(rows, list(MANIFEST_REQUIRED)))
        on_s3 = f"regexp_matches(uri, '^{S3}[^/]+/.')"
        sample = f"SELECT arg_min(uri, hash(track_id), {N_SAMPLED}) FROM manifest WHERE {on_s3}"
        uris = connection.sql(sample).fetchall()[0][0] or []
    places = tuple(f"{place}/" for place in allowed) or (S3,)
    check_any_readable([Location(uri) for uri in uris if uri.startswith(places)])
