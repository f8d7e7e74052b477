"""Commit: verifies what a run produced, and adds it to both tables.

A commit has three transactions: new failures are added, then tags, then the failures of tracks that now have tags are
removed. Each carries the run's id, so that an interrupted commit is completed and never repeated. Rows are rewritten
only in files that contain tracks of the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mtl_core.errors import RunError
from mtl_core.schema import SINCE
from mtl_core.storage.concurrency import PARALLEL_SMALL_FILES, bounded_map
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import conform
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.sql import create_table, open_database, scan_columns
from mtl_core.tables import forgotten
from mtl_core.tables.data_files import ROWS_PER_GROUP, DataFile, read_track_ids, write_files
from mtl_core.tables.delta import (
    OTHER_TABLE_VERSION,
    TABLE_SCHEMAS,
    commit_actions,
    open_table,
    open_to_write,
    table_version,
)
from mtl_core.tables.rewriting import rewrite_without

_TRACK_ID = pa.schema([("track_id", pa.string())])


class VerificationError(RunError):
    """The results of a run differ from its plan. Nothing is committed."""


@dataclass(frozen=True, kw_only=True)
class VerifiedRun:
    """A verified run, ready to be committed."""

    run_id: str
    model_id: str
    tagged: pa.Table | RowFile  # column track_id
    tags: list[DataFile]
    failures: pa.Table  # rows of FAILURES
    n_dropped: int = 0  # rows that are left out: their tracks were forgotten after they were planned


def verify_and_merge(
    staged: list[tuple[Location, int]],
    planned: pa.Table | RowFile,
    failures: pa.Table,
    root: Location,
    *,
    run_id: str,
    model_id: str,
    left: int = 0,
) -> VerifiedRun:
    """Verify a run, and merge the files of its shards into a few data files of the tags. The log is not changed.

    Shards are small, so that a crash costs little. A table of such small files would be slow to plan and to read.
    Rows of tracks that have been forgotten since they were planned are verified with the others, then left out.

    Args:
        staged: the shards' files of tags, each with its expected number of rows. A file of an older version may lack
            columns that `TAGS` gained since; they are null.
        planned: the tracks of the plan; column `track_id`.
        failures: the run's failures, `FAILURES`.
        left: how many of the planned tracks the run leaves as they are.

    Raises:
        VerificationError: a file is missing, unreadable or of another schema, or the tagged and failed tracks are not
            the planned ones, each exactly once.
    """
    forgotten_ids = forgotten.find(planned, root)["track_id"].combine_chunks()
    dropped = [_TRACK_ID.empty_table()]

    def without_forgotten(rows: pa.Table) -> pa.Table:
        if not len(forgotten_ids):
            return rows
        is_forgotten = pc.is_in(rows["track_id"], forgotten_ids)
        if pc.any(is_forgotten).as_py():
            dropped.append(rows.select(["track_id"]).filter(is_forgotten))
        return rows.filter(pc.invert(is_forgotten))

    # A shard of audio has at most 32 rows; one of embeddings has 65,536, which take 80 MB in memory.
    at_once = PARALLEL_SMALL_FILES if all(n_rows <= ROWS_PER_GROUP for _, n_rows in staged) else 2
    tables = map(without_forgotten, bounded_map(_read_staged, staged, at_once))
    files = write_files(tables, root / "tags", run_id, TABLE_SCHEMAS["tags"])
    failures = without_forgotten(failures)
    ids = (pa.record_batch([part], _TRACK_ID) for part in read_track_ids(root / "tags", files))
    tagged = RowFile.write(ids, _TRACK_ID)
    _verify_ids([tagged, failures, pa.concat_tables(dropped)], planned, left)
    return VerifiedRun(
        run_id=run_id,
        model_id=model_id,
        tagged=tagged,
        tags=files,
        failures=failures,
        n_dropped=sum(map(len, dropped)),
    )


def _verify_ids(results: Sequence[pa.Table | RowFile], planned: pa.Table | RowFile, left: int) -> None:
    """Raise VerificationError unless the results are of planned tracks, each once, and of all but `left` of them."""
    with open_database() as connection:
        create_table(connection, "results", results, ["track_id"])
        connection.register("planned", scan_columns(planned, ["track_id"]))
        n_results, n_distinct = connection.sql("SELECT count(*), count(DISTINCT track_id) FROM results").fetchall()[0]
        if n_results != len(planned) - left or n_distinct != n_results:
            others = f", {left:,} were left" if left else ""
            raise VerificationError(
                f"{len(planned):,} tracks were planned{others}, {n_results:,} were tagged or failed, {n_distinct:,} of "
                "them distinct"
            )
        unplanned = "SELECT count(*), min(track_id) FROM results ANTI JOIN planned USING (track_id)"
        n_unplanned, example = connection.sql(unplanned).fetchall()[0]
        if n_unplanned:
            raise VerificationError(f"{n_unplanned:,} tracks were not planned, e.g. {example!r}")


def _read_staged(staged: tuple[Location, int]) -> pa.Table:
    (file, n_rows), schema = staged, TABLE_SCHEMAS["tags"]
    try:
        table = pq.read_table(pa.BufferReader(file.read_bytes()), use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise VerificationError(f"{file} cannot be read: {error}") from error
    # A file of an older version lacks only columns that were added since.
    required = (field for field in schema if field.name in table.column_names or SINCE not in (field.metadata or {}))
    if table.schema != pa.schema(list(required)) or len(table) != n_rows:
        raise VerificationError(f"{file} has {len(table)} rows of {table.schema}, expected {n_rows} rows of {schema}")
    return conform(table, schema)


def commit_run(root: Location, run: VerifiedRun, check_lease: Callable[[], None]) -> None:
    """Add a run to the tables. Transactions that an earlier try has committed are skipped.

    The lease is checked before each transaction, after its table was opened. A transaction fails if anything was
    committed to its table in between, so no other run can interfere.
    """

    def write_failures() -> list[DataFile]:
        return write_files([run.failures], root / "failures", run.run_id, TABLE_SCHEMAS["failures"])

    # (table, the other table, name of the transaction, tracks whose rows are removed, what makes the new files)
    steps: list[tuple[str, str, str, list[pa.Table | RowFile], Callable[[], list[DataFile]]]] = [
        ("failures", "tags", "failures", [run.failures], write_failures),
        ("tags", "failures", "tags", [run.tagged, run.failures], lambda: run.tags),
        ("failures", "tags", "cleared", [run.tagged], list),
    ]
    for name, other, step, superseded, new_files in steps:
        transaction = f"{run.run_id}/{step}"
        table = open_to_write(root, name, check_lease)
        if table.transaction_version(transaction) is None:
            removed, rewritten = rewrite_without(root / name, table, superseded, f"{run.run_id}-{step}-kept")
            other_version = table_version(open_table(root, other)) or 0
            about = {"run_id": run.run_id, "model_id": run.model_id, OTHER_TABLE_VERSION: other_version}
            added = [*rewritten, *new_files()]
            commit_actions(table, removed, added, check_lease, about=about, transaction=transaction)


def has_committed(root: Location, run_id: str) -> bool:
    """Whether the first transactions of a run are in the tables, so that its commit must be completed."""
    tables = ((name, open_table(root, name)) for name in TABLE_SCHEMAS)
    return any(table and table.transaction_version(f"{run_id}/{name}") is not None for name, table in tables)
