"""labels.csv: the labels of a catalogue's files as one UTF-8 CSV file.

The column `path` is relative to the catalogue, and taken as it is. `track_id`, `artist`, `language` and `album` are
optional; all other columns are carried into the manifest. Of their cells, spaces at the ends do not count, and an empty
cell is None.
"""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST, MELS
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location
from mtl_core.storage.sql import insert, open_database

LABEL_COLUMNS = ("track_id", "artist", "language", "album")
_RESERVED = (set(MANIFEST.names) | set(MELS.names)) - set(LABEL_COLUMNS)
_ROWS_PER_BATCH = 16_384
_MAX_CELL_CHARACTERS = 2**31 - 1  # a cell may hold lyrics; by default 128 KiB are allowed


def read_label_file(location: Location) -> dict[str, dict[str, str | None]]:
    """Read labels.csv: path -> the other columns of its row. Raises InputError as `load_labels`."""
    with open_database() as database:
        columns = load_labels(database, location)
        rows = database.sql("SELECT * EXCLUDE row FROM labels ORDER BY row").fetchall()
    return {path: dict(zip(columns, cells, strict=True)) for path, *cells in rows}


def load_labels(database: duckdb.DuckDBPyConnection, location: Location) -> list[str]:
    """Create the table `labels` from a labels.csv.

    Its columns are `path`, `row` (its number in the file: the header is row 1, empty lines do not count), and
    `label_0`, `label_1` and so on, because names that differ only in case are one name in SQL.

    Returns:
        The name in the file of each label column.

    Raises:
        InputError: the file does not exist or is not UTF-8 CSV, it has no column `path` or a reserved column name, or
            a path occurs twice.
    """
    check_reachable(location)
    with as_input_error(location), location.filesystem.open(location.path, "rb") as file:
        lines = _read_lines(io.TextIOWrapper(file, "utf-8-sig", newline=""), location)
        header = _check_header([name.strip() for name in next(lines, [])], location)
        names = [name for name in header if name != "path"]
        columns = "".join(f", label_{n} VARCHAR" for n in range(len(names)))
        database.execute(f"CREATE TABLE labels (path VARCHAR, row BIGINT{columns})")
        insert(database, "labels", _batch_lines(lines, header, location))
    n_rows, n_hashes = database.sql("SELECT count(*), count(DISTINCT hash(path)) FROM labels").fetchall()[0]
    if n_hashes < n_rows:  # two paths may have the same hash, so the paths themselves decide
        query = "SELECT path, row FROM labels QUALIFY row_number() OVER (PARTITION BY path ORDER BY row) = 2"
        for path, row in database.sql(f"{query} ORDER BY row LIMIT 1").fetchall():
            raise InputError(f"{location}, row {row}: the path {path!r} occurs twice")
    return names


def _read_lines(text: io.TextIOWrapper, location: Location) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        yield from filter(None, csv.reader(text, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{location} is not a UTF-8 CSV file: {error}") from None


def _check_header(header: list[str], location: Location) -> list[str]:
    if "path" not in header:
        raise InputError(f"{location} has no column 'path': its columns are {header}")
    if "" in header:
        raise InputError(f"{location}: a column has no name: the columns are {header}")
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise InputError(f"{location}: the column names {repeated} occur more than once: rename them")
    reserved = sorted(_RESERVED & set(header))
    if reserved:
        raise InputError(f"{location}: the column names {reserved} are reserved: rename them")
    return header


def _batch_lines(lines: Iterator[list[str]], header: list[str], location: Location) -> Iterator[pa.Table]:
    """The lines as tables with the columns of `labels`."""
    first = 2
    while batch := list(itertools.islice(lines, _ROWS_PER_BATCH)):
        for row, line in enumerate(batch, first):
            if len(line) != len(header):
                raise InputError(f"{location}, row {row}: {len(line)} cells, but the header has {len(header)}")
        cells = dict(zip(header, zip(*batch, strict=True), strict=True))
        paths = cells.pop("path")
        labels = [[cell.strip() or None for cell in column] for column in cells.values()]
        columns = [pa.array(paths, pa.string()), pa.array(range(first, first + len(batch)), pa.int64())]
        columns += [pa.array(column, pa.string()) for column in labels]
        yield pa.table(columns, names=["path", "row", *(f"label_{n}" for n in range(len(labels)))])
        first += len(batch)
