"""SQL: DuckDB inside this process, for joins and sorts of more rows than fit into memory.

A database holds at most `MEMORY`; the rest goes to a temporary folder. Results are Arrow tables mapped from a temporary
file: a plan of ten million rows has 1.4 GB, but needs no memory beyond the system's page cache.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset

MEMORY = "768MiB"
THREADS = 2  # each thread takes its buffers from MEMORY
_ROWS_PER_BATCH = 65_536


@contextlib.contextmanager
def open_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database, deleted when the body ends."""
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        config = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        with duckdb.connect(config=config) as connection:
            yield connection


def scan_columns(
    rows: pa.Table | pyarrow.dataset.Dataset, columns: list[str], where: pyarrow.dataset.Expression | None = None
) -> pa.RecordBatchReader:
    """A stream of some columns of the rows where a filter holds, to be registered in a database and read once."""
    dataset = pyarrow.dataset.dataset(rows) if isinstance(rows, pa.Table) else rows
    scanner = dataset.scanner(
        columns=columns, filter=where, batch_size=_ROWS_PER_BATCH, batch_readahead=THREADS, fragment_readahead=1
    )
    return scanner.to_reader()


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
    """The rows of an SQL query with named parameters, mapped from a temporary file that is already unlinked."""
    reader = connection.sql(query, params=params).to_arrow_reader(_ROWS_PER_BATCH)
    with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
        path = str(Path(folder) / "rows.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
