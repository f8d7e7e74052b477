"""Purge: the latest version of each table becomes the only one. The caller holds the lease.

Older versions, in files and in the log, keep rows that have been removed: the rows themselves, and the least and
greatest value of each column of a file. A purge commits a version that changes no row, writes a checkpoint of it, and
deletes everything else. Time travel ends at that version. Readers that opened an older one get an error.

It can be interrupted at any moment. The latest version stays readable, and the same call completes it.
"""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from mtl_core.errors import RunError
from mtl_core.storage.location import Location
from mtl_core.tables.data_files import active_files, delete_files
from mtl_core.tables.delta import TABLE_SCHEMAS, commit_nothing, open_table, open_tables

_LOG = "_delta_log/"
_LAST_CHECKPOINT = f"{_LOG}_last_checkpoint"
_PURGED = "purged"  # key in the log of a purge's version


def purge_table(root: Location, name: str, check_lease: Callable[[], None]) -> int:
    """Delete all files of a table that its latest version does not need. Returns their number.

    Raises:
        RunError: another program changed the table.
    """
    table = open_table(root, name)
    if table is None:
        return 0
    if not table.history(1)[0].get(_PURGED):
        commit_nothing(table, check_lease, about={_PURGED: True})
        table.update_incremental()
    _require_checkpoint(root / name, table)
    of_version = f"{_LOG}{table.version():020}."
    needed = {file.path for file in active_files(table)} | {_LAST_CHECKPOINT}
    paths = [path for path, _ in (root / name).walk() if path not in needed and not path.startswith(of_version)]
    # The log first, the oldest entries first: what is left of it never describes a version whose files are missing.
    paths.sort(key=lambda path: (not path.startswith(_LOG), path))
    delete_files([root / name / path for path in paths], check_lease)
    return len(paths)


def _require_checkpoint(location: Location, table: DeltaTable) -> None:
    """Write the checkpoint of the table's version unless an interrupted purge has."""
    checkpoint = location / f"{_LOG}{table.version():020}.checkpoint.parquet"
    if not (checkpoint.exists() and (location / _LAST_CHECKPOINT).exists()):
        table.create_checkpoint()
    if not checkpoint.exists():
        raise RunError(f"{checkpoint} was not written: nothing is purged")


def stored_ids(root: Location) -> Iterator[pa.Table]:
    """`track_id` of every row in every data file of both tables, those of older versions included."""
    for name in TABLE_SCHEMAS:
        for path, _ in (root / name).walk():
            if path.endswith(".parquet") and not path.startswith(_LOG):
                with (root / name / path).open_arrow() as source:
                    yield pq.read_table(source, columns=["track_id"], use_threads=False)


def purge(root: Location, check_lease: Callable[[], None]) -> dict[str, int]:
    """Purge both tables. Returns the number of deleted files of each. Raises errors as `purge_table`."""
    return {name: purge_table(root, name, check_lease) for name in open_tables(root)}
