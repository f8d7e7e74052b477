"""Row file: rows in a temporary file of this machine, for plans of more rows than fit into memory.

The rows of ten million tracks take 2 GB. A memory-mapped table counts as memory of the process as soon as it is read,
so several tables of a night would take several times that.
"""

import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, kw_only=True, eq=False)
class RowFile:
    """Rows that follow each other in a temporary file. In memory is the batch that is read. Threads may share it.

    The file has no name any more, so it goes with the last object that reads it.
    """

    _file: pa.ipc.RecordBatchFileReader
    _start_B: np.ndarray  # number of the first row of each batch of the file, and of all rows at the end
    _first: int  # of these rows, in the file
    n_rows: int
    _lock: threading.Lock = field(default_factory=threading.Lock)  # pyarrow does not say that threads may share a file

    @classmethod
    def write(cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> "RowFile":
        """Write rows to a new file."""
        lengths = [0]
        with tempfile.TemporaryDirectory(prefix="mtl-") as folder:
            path = str(Path(folder) / "rows.arrow")
            with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    lengths.append(len(batch))
            file = pa.ipc.open_file(pa.OSFile(path))
        start_B = np.cumsum(lengths)
        return cls(_file=file, _start_B=start_B, _first=0, n_rows=int(start_B[-1]))

    @property
    def schema(self) -> pa.Schema:
        """Of the rows."""
        return self._file.schema

    def __len__(self) -> int:
        return self.n_rows

    def slice(self, first: int, n_rows: int | None = None) -> "RowFile":
        """Some of these rows: at most `n_rows` from number `first` on, or all."""
        first = min(first, self.n_rows)
        left = self.n_rows - first
        return replace(self, _first=self._first + first, n_rows=left if n_rows is None else min(left, n_rows))

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in their order."""
        end = self._first + self.n_rows
        numbers = range(np.searchsorted(self._start_B, self._first, "right") - 1, np.searchsorted(self._start_B, end))
        for number in numbers:
            start = int(self._start_B[number])
            with self._lock:
                batch = self._file.get_batch(number)
            skipped = max(0, self._first - start)
            yield batch.slice(skipped, min(end - start, len(batch)) - skipped)

    def select(self, columns: list[str]) -> pa.RecordBatchReader:
        """A stream of some columns of the rows."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.RecordBatchReader.from_batches(schema, (batch.select(columns) for batch in self.to_batches()))

    def to_table(self) -> pa.Table:
        """All rows, in memory."""
        return pa.Table.from_batches(self.to_batches(), self.schema)
