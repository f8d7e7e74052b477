"""How a script ends that reads a table and does nothing more: python bench/bench_end_of_process.py [RUNS]

Prints the exit statuses of RUNS (12) processes for each way of reading a table of 300,000 rows on a local disk.
Negative: the signal that ended it (-6: aborted, -11: crashed; a shell says 134, 139); "hangs": it did not end in 20 s.
"""

import subprocess
import sys
import tempfile
from collections import Counter

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

SCRIPT = """
import sys
import duckdb, polars, pyarrow, pyarrow.dataset
from deltalake import DeltaTable
from mtl_core.storage.location import Location
from mtl_core.tables.delta import open_dataset
at = sys.argv[1]
table = DeltaTable(at)
"""
WAYS = {
    "to_pyarrow_table()": "table.to_pyarrow_table()",
    "to_pandas()": "table.to_pandas()",
    "to_pyarrow_dataset().head(3)": "table.to_pyarrow_dataset().head(3)",
    "open_dataset(…).head(3)": "open_dataset(Location(at), table).head(3)",
    "pyarrow.dataset, file_uris()": "pyarrow.dataset.dataset(table.file_uris()).to_table()",
    "DuckDB, file_uris()": "duckdb.sql(f'SELECT avg(value) FROM read_parquet({table.file_uris()})').fetchall()",
    "polars.scan_delta(…)": "polars.scan_delta(at).head(3).collect()",
}


def end(way: str, at: str) -> str:
    try:
        return str(subprocess.run([sys.executable, "-c", SCRIPT + way, at], capture_output=True, timeout=20).returncode)
    except subprocess.TimeoutExpired:
        return "hangs"


def main(runs: int = 12) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as at:
        for _ in range(6):
            rows = {"track_id": [str(i) for i in range(50_000)], "value": np.random.rand(50_000)}
            write_deltalake(at, pa.table(rows), mode="append")
        for name, way in WAYS.items():
            ends = Counter(end(way, at) for _ in range(runs))
            print(f"{name:32}", ", ".join(f"{count} x {status}" for status, count in sorted(ends.items())), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
