"""Tables: what is known of a catalogue, `OUT/tags` and `OUT/failures`, two Delta tables (Parquet files under a log).

A track is in one of them, at the border of a commit for a moment in both, never in neither: new failures are committed
first, then tags, then the failures of tracks that are tagged now go. Each is one transaction that carries the run's
id, so that a commit cut short is completed and never repeated. Files join a table by name, after they were verified; a
table's rows are only rewritten where a run supersedes some of a file's rows. Memory does not grow with the tables.

Contents: `read_state`, `plan` (what is still to do), `merge` (a run's shards -> few verified files), `commit`,
`transact` (one change of one table), `export`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import CommitProperties, Transaction

from mtl_core.errors import RunError
from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage.concurrency import PARALLEL_SMALL_FILES, bounded_map
from mtl_core.storage.location import Location
from mtl_core.storage.sql import fetch_table, open_database, scan_columns
from mtl_core.tables.data_files import (
    DataFile,
    FileRemainder,
    active_files,
    iter_row_groups,
    read_track_ids,
    rewrite_files,
    write_file,
    write_files,
)

TABLE_SCHEMAS = {"failures": FAILURES, "tags": TAGS}  # in the order of commit
#: Every transaction of ours carries this name too: Delta lets two that carry the same only commit one after the other.
APPLICATION = "tag_catalogue"


class VerificationError(RunError):
    """What a run left behind is not what it planned: nothing is committed."""


def open_table(root: Location, name: str, version: int | None = None) -> DeltaTable | None:
    """The table `name` under `root` at a version, by default its latest; None where there is no table yet."""
    options = storage_options(root)
    uri = (root / name).uri
    return DeltaTable(uri, version, storage_options=options) if DeltaTable.is_deltatable(uri, options) else None


def storage_options(root: Location) -> dict[str, str]:
    """What deltalake needs beside the AWS variables: leave to talk to an endpoint without TLS."""
    return {"allow_http": "true"} if root.on_s3 else {}


class Snapshot(NamedTuple):
    """Both tables at one moment; None for one that is not there yet."""

    tags: DeltaTable | None
    failures: DeltaTable | None


def read_snapshot(root: Location) -> Snapshot:
    """Both tables as they were at one moment.

    Two tables cannot be opened in one step. Who opens the tags, then the failures, and a night's commit falls in
    between, finds a track that failed before and is tagged now in neither: not yet in the tags, no more in the
    failures. So it is made sure afterwards that the tags are still the same: then both were so when the failures were
    opened; else it begins again. What is returned stays as it is however long it is read, until `upkeep.clean` takes
    its files, days later. In the middle of a commit a track may be in both: the later of `tagged_at` and `failed_at`
    holds.
    """
    while True:
        tags, failures, again = (open_table(root, name) for name in ("tags", "failures", "tags"))
        if _version(tags) == _version(again):
            return Snapshot(tags, failures)


def _version(table: DeltaTable | None) -> int | None:
    return None if table is None else table.version()


def _of_model(root: Location, name: str, model_id: str, columns: list[str]) -> pa.RecordBatchReader:
    """What a table knows of a model's tracks."""
    table = open_table(root, name)
    rows = TABLE_SCHEMAS[name].empty_table() if table is None else table.to_pyarrow_dataset()
    return scan_columns(rows, columns, pyarrow.dataset.field("model_id") == model_id)


def plan_tracks(
    manifest: pa.Table | pyarrow.dataset.Dataset,
    root: Location,
    model_id: str,
    *,
    retry_failed: bool,
) -> pa.Table:
    """The tracks still to do: those that no tag and no permanent failure of the same content and model speaks for.

    Args:
        manifest: as `manifest.scan` or `manifest.read` returns it.
        root: of the tables.
        model_id: of the model to tag with.
        retry_failed: permanent failures too.

    Returns:
        track_id, uri, content_id, size_bytes, attempts (int32, earlier failures of the same content and model); sorted
        by track_id. The rows lie in a file, not in memory.
    """
    with open_database() as connection:
        connection.register("manifest", scan_columns(manifest, ["track_id", "uri", "content_id", "size_bytes"]))
        connection.register("tags", _of_model(root, "tags", model_id, ["track_id", "content_id"]))
        columns = ["track_id", "content_id", "attempts", "permanent"]
        connection.register("failed", _of_model(root, "failures", model_id, columns))
        return fetch_table(
            connection,
            """
            SELECT m.track_id, m.uri, m.content_id, m.size_bytes, coalesce(f.attempts, 0)::INTEGER AS attempts
            FROM manifest m
            ANTI JOIN tags t
                ON m.track_id = t.track_id AND m.content_id IS NOT DISTINCT FROM t.content_id
            LEFT JOIN failed f ON m.track_id = f.track_id AND m.content_id IS NOT DISTINCT FROM f.content_id
            WHERE $retry_failed OR f.permanent IS NOT TRUE
            ORDER BY m.track_id
            """,
            {"retry_failed": retry_failed},
        )


@dataclass(frozen=True, kw_only=True)
class VerifiedRun:
    """A verified run, ready to be committed.

    Args:
        run_id, model_id: of the run.
        tagged, failed: the track_ids (string) of each.
        tags: the files of its tags.
        failures: the rows of its failures.
    """

    run_id: str
    model_id: str
    tagged: pa.ChunkedArray
    failed: pa.ChunkedArray
    tags: list[DataFile]
    failures: pa.Table


def merge_shards(
    staged: list[tuple[Location, int]],
    planned: pa.Table,
    failures: pa.Table,
    root: Location,
    *,
    run_id: str,
    model_id: str,
) -> VerifiedRun:
    """Verify a run and merge the files of its shards into few, under the root of the tags.

    A shard is small, so that a crash costs little; a table of such files would be slow to plan against and to read.

    Args:
        staged: the shards' files of tags, each with the rows it must have.
        planned: the plan's tracks.
        failures: the run's failures, `FAILURES`.
        root: of the tables.
        run_id, model_id: of the run.

    Raises:
        VerificationError: a file is missing, unreadable or of another schema, or the tracks tagged and failed are not
            the planned ones, each once. The message says what differs.
    """
    parts = write_files(bounded_map(_read_staged, staged, PARALLEL_SMALL_FILES), root / "tags", run_id, TAGS)
    tagged = pa.chunked_array(read_track_ids(root / "tags", parts), pa.string())
    failed = failures["track_id"]
    with open_database() as connection:
        connection.register("found", pa.table({"track_id": pa.chunked_array([*tagged.chunks, *failed.chunks])}))
        connection.register("planned", planned)
        n_found, n_different = connection.sql("SELECT count(*), count(DISTINCT track_id) FROM found").fetchall()[0]
        if n_found != len(planned) or n_different != len(planned):
            raise VerificationError(
                f"{len(planned):,} tracks were planned, {n_found:,} were tagged or failed, "
                f"{n_different:,} different ones"
            )
        strangers = "SELECT count(*), min(track_id) FROM found ANTI JOIN planned USING (track_id)"
        n_strangers, stranger = connection.sql(strangers).fetchall()[0]
        if n_strangers:
            raise VerificationError(f"{n_strangers:,} tracks were not planned, {stranger!r} for one")
    return VerifiedRun(run_id=run_id, model_id=model_id, tagged=tagged, failed=failed, tags=parts, failures=failures)


def _read_staged(staged: tuple[Location, int]) -> pa.Table:
    file, n_rows = staged
    try:
        table = pq.read_table(pa.BufferReader(file.read_bytes()), use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise VerificationError(f"{file} cannot be read: {error}") from error
    if table.schema != TAGS or len(table) != n_rows:
        raise VerificationError(f"{file} has {len(table)} rows of {table.schema}, not {n_rows} rows of TAGS")
    return table


def commit(root: Location, outcome: VerifiedRun, check_lease: Callable[[], None]) -> None:
    """Put a run into the tables; a transaction that is there already is not repeated.

    Args:
        root: of the tables.
        outcome: of the run.
        check_lease: raises where another run has taken over; asked before each transaction, after its table was opened.
            Whatever is committed between the two makes the transaction fail, so that nothing slips between.
    """
    planned = pa.chunked_array([*outcome.tagged.chunks, *outcome.failed.chunks], pa.string())

    def once(name: str, step: str, superseded: pa.ChunkedArray, new: Callable[[], list[DataFile]]) -> None:
        transaction = f"{outcome.run_id}/{step}"
        table = open_table(root, name) or DeltaTable.create(
            (root / name).uri, TABLE_SCHEMAS[name], mode="ignore", storage_options=storage_options(root)
        )
        if table.transaction_version(transaction) is not None:
            return
        removed, kept = rewrite_without(root, name, table, superseded, f"{outcome.run_id}-{step}-kept")
        other = "tags" if name == "failures" else "failures"
        about = {
            "run_id": outcome.run_id,
            "model_id": outcome.model_id,
            OTHER_TABLE_VERSION: _version(open_table(root, other)) or 0,
        }
        commit_actions(table, removed, [*kept, *new()], check_lease, about=about, transaction=transaction)

    once(
        "failures",
        "failures",
        outcome.failed,
        lambda: write_files(iter([outcome.failures]), root / "failures", outcome.run_id, FAILURES),
    )
    once("tags", "tags", planned, lambda: outcome.tags)
    once("failures", "cleared", outcome.tagged, list)


def has_committed(root: Location, run_id: str) -> bool:
    """Whether some of a run is in the tables already."""
    steps = (("failures", "failures"), ("tags", "tags"))
    opened = ((open_table(root, name), step) for name, step in steps)
    return any(
        table is not None and table.transaction_version(f"{run_id}/{step}") is not None for table, step in opened
    )


#: In the log of a table, with each commit of a run: the version of the other table at that moment.
OTHER_TABLE_VERSION = "other_table_version"


def commit_actions(
    table: DeltaTable,
    removed: list[DataFile],
    added: list[DataFile],
    check_lease: Callable[[], None],
    *,
    about: dict[str, Any],
    transaction: str | None = None,
    data_change: bool = True,
) -> None:
    """Let parts leave a table and others enter it, in one step, unless the table was changed since it was opened.

    Args:
        table: as it was when `removed` and `added` were found.
        check_lease: as for `commit`.
        about: to be kept in the log.
        transaction: a name by which the log can be asked whether this was done.
        data_change: False where the rows stay the same.

    Raises:
        RunError: someone else changed the table.
    """
    if not removed and not added:
        return
    check_lease()
    transactions = [Transaction(APPLICATION, (table.transaction_version(APPLICATION) or 0) + 1)]
    if transaction is not None:
        transactions.append(Transaction(transaction, 1))
    properties = CommitProperties(app_transactions=transactions, custom_metadata=about, max_commit_retries=0)
    try:
        table.create_write_transaction(
            [*(p.remove(data_change=data_change) for p in removed), *(p.add(data_change=data_change) for p in added)],
            mode="append",
            schema=table.schema(),
            commit_properties=properties,
        )
    except CommitFailedError as error:
        table.update_incremental()  # a request whose answer was lost is sent again, and finds its own entry there
        if transaction is None or table.transaction_version(transaction) is None:
            raise RunError(f"{table.table_uri}: someone else has changed the table meanwhile: {error}") from None


def rewrite_without(
    root: Location, name: str, table: DeltaTable, superseded: pa.ChunkedArray, prefix: str
) -> tuple[list[DataFile], list[DataFile]]:
    """The parts that hold superseded tracks, to be removed, and new parts of their other rows, to be added.

    Args:
        root, name: of the table.
        table: at the version to change.
        superseded: track_ids, those that the table does not know among them.
        prefix: of the new parts' names.
    """
    at = root / name
    touched = [FileRemainder(part, dropped) for part, dropped in _find_rows(at, active_files(table), superseded)]
    kept = rewrite_files([one for one in touched if one.n_rows], at, prefix, TABLE_SCHEMAS[name])
    return [one.part for one in touched], kept


def _find_rows(
    at: Location, parts: list[DataFile], superseded: pa.ChunkedArray
) -> Iterator[tuple[DataFile, np.ndarray]]:
    """The parts that hold some of these tracks, each with the numbers of their rows.

    Only the track_ids of parts whose range has one of them are read.
    """
    if not parts or not len(superseded):
        return
    with open_database() as connection:
        connection.register("superseded", pa.table({"track_id": superseded}))
        ranges = {
            "part": pa.array(range(len(parts)), pa.int32()),
            "first": pa.array([part.min_values.get("track_id", "") for part in parts], pa.string()),
            "last": pa.array([part.max_values.get("track_id") for part in parts], pa.string()),
        }
        connection.register("ranges", pa.table(ranges))
        near = connection.sql(
            "SELECT part FROM ranges ASOF JOIN superseded ON first <= track_id"
            " WHERE last IS NULL OR track_id <= last ORDER BY part"
        ).fetchall()
        numbers = [number for (number,) in near]
        ids = zip(numbers, read_track_ids(at, [parts[number] for number in numbers]), strict=True)
        batches = (_with_row_numbers(number, track_id) for number, track_id in ids)
        connection.register("rows", pa.RecordBatchReader.from_batches(_NUMBERED, batches))
        hits = fetch_table(
            connection, "SELECT part, row FROM rows SEMI JOIN superseded USING (track_id) ORDER BY part, row"
        )
    part_of, row = hits["part"].to_numpy(), hits["row"].to_numpy()
    found, starts = np.unique(part_of, return_index=True)
    for number, dropped in zip(found, np.split(row, starts)[1:], strict=True):
        yield parts[number], dropped


_NUMBERED = pa.schema([("part", pa.int32()), ("row", pa.int32()), ("track_id", pa.string())])


def _with_row_numbers(part: int, track_id: pa.Array) -> pa.RecordBatch:
    n_rows = len(track_id)
    return pa.record_batch(
        [pa.array(np.full(n_rows, part, np.int32)), pa.array(np.arange(n_rows, dtype=np.int32)), track_id], _NUMBERED
    )


def export_parquet(root: Location, out: Location) -> int:
    """Write the tags' current state as one plain Parquet file, `out`, and return its number of rows."""
    table = open_table(root, "tags")
    parts = [] if table is None else active_files(table)
    return write_file(iter_row_groups(root / "tags", parts, TAGS), out, TAGS).n_rows
