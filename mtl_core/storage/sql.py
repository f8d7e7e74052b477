"""SQL: DuckDB inside this process, for joins and sorts of more rows than fit into memory.

A database holds at most `MEMORY`; the rest goes to a temporary folder. Long results are row files, see `row_file`.

Two rules keep a query within that memory, whatever the numbers of rows are:

- A join builds a hash table of its right side, as it is written. The side of fewer or narrower rows stands there.
- A statement has one join or sort of wide rows, with `CREATE TABLE` between two of them. In one statement, parts that
  are each too small to be written to disk can be too large together. A few statements on ids alone have two.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset

from mtl_core.storage.row_file import RowFile

MEMORY = "768MiB"
THREADS = 1  # with 2, a sort of just less than MEMORY fails, as both threads take their buffers from it
_ROWS_PER_BATCH = 16_384
_READ_AHEAD = 2  # batches of a file that are read while the database works
#: DuckDB does not know how many rows a stream has. It guesses one, and would build hash tables of whole manifests.
_GUESSING_OPTIMIZERS = "join_order,build_side_probe_side"


@contextlib.contextmanager
def open_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database, deleted when the body ends.

    Raises OSError where the disk of the temporary folder is full.
    """
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        config = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": folder,
            "preserve_insertion_order": False,
            "disabled_optimizers": _GUESSING_OPTIMIZERS,
        }
        with duckdb.connect(config=config) as connection:
            try:
                yield connection
            except (duckdb.OutOfMemoryException, OSError) as error:  # a stream's errors are an OSError
                if "failed to offload" in str(error):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder) from error
                raise


def scan_columns(
    rows: pa.Table | pyarrow.dataset.Dataset | RowFile,
    columns: list[str],
    where: pyarrow.dataset.Expression | None = None,
) -> pa.RecordBatchReader:
    """A stream of some columns of the rows where a filter holds, to be registered in a database and read once.

    Rows of a `RowFile` are not filtered.
    """
    if isinstance(rows, RowFile):
        assert where is None, "rows of a file are not filtered"
        return rows.select(columns)
    dataset = pyarrow.dataset.dataset(rows) if isinstance(rows, pa.Table) else rows
    scanner = dataset.scanner(
        columns=columns, filter=where, batch_size=_ROWS_PER_BATCH, batch_readahead=_READ_AHEAD, fragment_readahead=1
    )
    return scanner.to_reader()


def create_table(
    connection: duckdb.DuckDBPyConnection, name: str, parts: Sequence[pa.Table | RowFile], columns: list[str]
) -> None:
    """Make a table of some columns of rows, one part after the other. Several queries can read it, unlike a stream.

    Args:
        parts: one or more, of the same types.
    """
    for number, rows in enumerate(parts):
        connection.register("part", scan_columns(rows, columns))
        connection.execute(f"INSERT INTO {name} FROM part" if number else f"CREATE TABLE {name} AS FROM part")
        connection.unregister("part")


def insert(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    batches: Iterable[pa.Table],
    query: str = "SELECT * FROM batch",
    params: dict[str, Any] | None = None,
) -> None:
    """Append the rows of tables, which an SQL query with named parameters may change; it reads them as `batch`.

    A database that reads a stream itself turns the stream's exceptions into its own; here they stay as they are.
    """
    for batch in batches:
        connection.register("batch", batch)
        connection.execute(f"INSERT INTO {table} {query}", params)
        connection.unregister("batch")


#: What `str.strip` removes.
WHITESPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
WHITESPACE += "\u2028\u2029\u202f\u205f\u3000"


def stripped(expression: str) -> str:
    """The SQL of a text without spaces at its ends, as `str.strip`. SQL's own `trim` knows one kind of space."""
    return f"trim({expression}, '{WHITESPACE}')"


def read_batches(connection: duckdb.DuckDBPyConnection, query: str, n_rows: int) -> pa.RecordBatchReader:
    """The rows of an SQL query as batches of at most `n_rows`, of which one is in memory."""
    return connection.sql(query).to_arrow_reader(n_rows)


def fetch_table(connection: duckdb.DuckDBPyConnection, query: str, params: dict[str, Any] | None = None) -> pa.Table:
    """The rows of an SQL query with named parameters, of few or narrow rows: they are in memory."""
    return connection.sql(query, params=params).to_arrow_table()


def fetch_rows(connection: duckdb.DuckDBPyConnection, query: str, params: dict[str, Any] | None = None) -> RowFile:
    """The rows of an SQL query with named parameters, in a temporary file."""
    reader = connection.sql(query, params=params).to_arrow_reader(_ROWS_PER_BATCH)
    return RowFile.write(reader, reader.schema)
