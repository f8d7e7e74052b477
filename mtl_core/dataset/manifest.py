"""Manifest: the list of tracks to work on, one row a track (`schema.MANIFEST` and carried columns).

Contents: `build` (list a catalogue, join its labels), `read` and `scan` (the door of every job that takes a
manifest), `write`.
"""

import contextlib
import csv
import io
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from mtl_core.audio.source import AUDIO_EXTENSIONS, is_audio_file
from mtl_core.dataset.folder_labels import labels_from_paths
from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST, MANIFEST_REQUIRED, MELS
from mtl_core.storage.location import S3, Location, as_input_error, check_reachable, content_id
from mtl_core.storage.sql import open_database, scan_columns

LABEL_COLUMNS = ("track_id", "artist", "language", "album")
_RESERVED = (set(MANIFEST.names) | set(MELS.names)) - set(LABEL_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """A manifest just built: its rows, the paths of label rows without a file, names that are no UTF-8, and files whose
    folders are no labels.
    """

    table: pa.Table
    labels_without_file: list[str]
    undecodable_names: list[str]
    outside_layout: list[str]


def build_from(catalogue: Location, labels: Location | None, *, from_folders: bool = False) -> BuildReport:
    """List a catalogue's tracks and join their labels.

    Args:
        catalogue: a folder or a prefix; everything below it is looked at.
        labels: a CSV file as `labels.csv` in JOBS.md, or None: no track has a label.
        from_folders: take the labels from where a file lies, as `folders` has it; instead of `labels`.

    Returns:
        `MANIFEST` columns, then the labels' other columns as strings, sorted by track_id; an empty label is null.

    Raises:
        InputError: nothing is there, the labels are malformed, or no folder is one.
    """
    check_reachable(catalogue)
    rows = {} if labels is None else read_labels(labels)
    misfits: list[str] = []
    carried = [name for name in next(iter(rows.values()), {}) if name not in LABEL_COLUMNS]
    records, not_text = [], []
    with as_input_error(catalogue):
        if not catalogue.on_s3 and not catalogue.exists():
            raise FileNotFoundError
        found = list(catalogue.walk())
        if from_folders:
            rows, misfits = labels_from_paths(path for path, _ in found if _is_text(path) and is_audio_file(path))
            if misfits and not rows:
                raise InputError(f"{catalogue}: no song lies in LANGUAGE/ARTIST/, {misfits[0]!r} for one")
        for path, entry in found:
            if not _is_text(path):
                not_text.append(repr(path))
            elif path in rows or is_audio_file(path):
                row = rows.pop(path, {})
                records.append(
                    {
                        **dict.fromkeys(carried),
                        **row,
                        "track_id": row.get("track_id") or path,
                        "uri": f"{catalogue.uri}/{path}",
                        "content_id": content_id(entry),
                        "size_bytes": entry["size"],
                    }
                )
    schema = MANIFEST
    for name in carried:
        schema = schema.append(pa.field(name, pa.string()))
    table = pa.Table.from_pylist(records, schema=schema).sort_by("track_id")
    if not records:
        raise InputError(
            f"{catalogue}: no audio file below it (known extensions: {', '.join(sorted(AUDIO_EXTENSIONS))})"
        )
    _check_ids(table, catalogue)
    return BuildReport(
        table=table, labels_without_file=sorted(rows), undecodable_names=not_text, outside_layout=misfits
    )


def _is_text(path: str) -> bool:
    return path.encode(errors="replace").decode() == path


def read_labels(location: Location) -> dict[str, dict[str, str | None]]:
    """`labels.csv` -> {path: its other columns}, empty cells as None.

    Raises:
        InputError: no such file, not UTF-8 CSV, no `path` column, a reserved column name, a path twice.
    """
    check_reachable(location)
    with as_input_error(location):
        data = location.read_bytes()
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header, *lines = [[cell.strip() for cell in line] for line in reader if line] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{location} is no UTF-8 CSV file: {error}") from None
    if "path" not in header:
        raise InputError(f"{location} has no column 'path': its columns are {header}")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if "" in header:
        raise InputError(f"{location}: a column without a name: its columns are {header}")
    if twice or _RESERVED & set(header):
        raise InputError(f"{location}: column names {twice or sorted(_RESERVED & set(header))} are taken: rename them")
    rows: dict[str, dict[str, str | None]] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise InputError(f"{location}, row {number}: {len(line)} cells where the header has {len(header)}")
        row: dict[str, str | None] = {name: cell or None for name, cell in zip(header, line, strict=True)}
        path = posixpath.normpath(row.pop("path") or "")
        if path in rows:
            raise InputError(f"{location}, row {number}: path {path!r} stands there twice")
        rows[path] = row
    return rows


def write(table: pa.Table, location: Location) -> None:
    """Write a manifest as one Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    with as_input_error(location):
        location.write_bytes(memoryview(buffer.getvalue()))


def read(location: Location) -> pa.Table:
    """Read and check a manifest: a Parquet file or a folder of them.

    Returns:
        All `MANIFEST` columns (null where the file has none), then the carried columns, in the file's order.

    Raises:
        InputError: nothing is there, it is no Parquet, a required column is missing, an id is empty or stands there
        twice.
    """
    rows = scan(location)
    with _as_manifest(location):
        return rows.to_table()


def scan(location: Location) -> pyarrow.dataset.Dataset:
    """Check a manifest as `read` does, and leave its rows where they are: for millions of them."""
    check_reachable(location)
    with as_input_error(location):
        entry = location.filesystem.info(location.path)
        parts = [location] if entry["type"] == "file" else location.files(".parquet")
        if not parts:
            raise InputError(f"{location}: a folder without Parquet files is no manifest")
        with _as_manifest(location):
            schemas = [_schema(part) for part in parts]
            schema = pa.unify_schemas(schemas, promote_options="permissive")
            rows = pyarrow.dataset.dataset(
                [part.path for part in parts],
                schema=pa.schema([*MANIFEST, *(field for field in schema if field.name not in MANIFEST.names)]),
                filesystem=location.arrow_filesystem,
                format="parquet",
            )
            _check_ids(rows, location)
    return rows


@contextlib.contextmanager
def _as_manifest(location: Location) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, duckdb.Error) as error:
        raise InputError(f"{location} is no Parquet manifest: {' '.join(str(error).split())}") from None


def _schema(location: Location) -> pa.Schema:
    """The columns of one file of a manifest, checked against those of `MANIFEST`."""
    schema = pq.read_schema(location.path, filesystem=location.arrow_filesystem)
    missing = [name for name in MANIFEST_REQUIRED if name not in schema.names]
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise InputError(f"{location} has two columns {twice[0]!r}")
    if missing:
        raise InputError(f"{location} has no column {missing[0]!r}: a manifest needs {', '.join(MANIFEST_REQUIRED)}")
    for wanted in MANIFEST:
        if wanted.name in schema.names and not _fits(schema.field(wanted.name).type, wanted.type):
            found = schema.field(wanted.name).type
            raise InputError(f"{location}: column {wanted.name!r} is {found}, not {wanted.type}")
    return pa.schema([field for field in schema if field.name not in MANIFEST.names])


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value of one type is one of the other; text is no number, whatever it says."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_string(wanted):
        text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
        return any(is_type(found) for is_type in text)
    return pa.types.is_integer(found) or pa.types.is_null(found)


_EMPTY = {name: f"count(*) FILTER (coalesce({name}, '') = '')" for name in MANIFEST_REQUIRED}
_STRANGE = f"NOT regexp_matches(uri, '^(/|file://|{S3}[^/])')"


def _check_ids(rows: pyarrow.dataset.Dataset | pa.Table, location: Location) -> None:
    with open_database() as connection:
        connection.register("manifest", scan_columns(rows, list(MANIFEST_REQUIRED)))
        # Ten million hashes are counted in a third of the time and memory of as many strings.
        looked_at = f"count(*), count(DISTINCT hash(track_id)), min(uri) FILTER ({_STRANGE})"
        query = f"SELECT {looked_at}, {', '.join(_EMPTY.values())} FROM manifest"
        n_rows, n_hashes, strange, *n_empty = connection.sql(query).fetchall()[0]
        for name, n in zip(MANIFEST_REQUIRED, n_empty, strict=True):
            if n:
                raise InputError(f"{location}: {n} rows without {name}: every row needs one")
        if n_hashes < n_rows:
            connection.register("manifest", scan_columns(rows, ["track_id"]))
            twice = "SELECT track_id FROM manifest GROUP BY track_id HAVING count(*) > 1"
            n_twice, one = connection.sql(f"SELECT count(*), min(track_id) FROM ({twice})").fetchall()[0]
            if n_twice:
                raise InputError(f"{location}: {n_twice} track_ids stand there more than once, {one!r} for one")
        if strange is not None:
            raise InputError(f"{location}: uri {strange!r}: allowed are an absolute path and s3://bucket/key")
