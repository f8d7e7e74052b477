"""Tables: what is known of a catalogue, `OUT/tags` and `OUT/failures`, two Delta tables (Parquet files under a log).

A track is in one of them, at the border of a commit for a moment in both, never in neither: new failures are committed
first, then tags, then the failures of tracks that are tagged now go. Each is one transaction that carries the run's
id, so that a commit cut short is completed and never repeated. Files join a table by name, after they were verified; a
table's rows are only rewritten where a run supersedes some of a file's rows.

Contents: `plan` (what is still to do), `merge` (a run's shards -> few verified files), `commit`, `export`.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from mtl_core.failures import RunError
from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage import Location

SCHEMAS = {"failures": FAILURES, "tags": TAGS}  # in the order of commit
ROWS_PER_FILE = 262_144  # some 300 MB of tags: few enough files for a reader, small enough to rewrite
ROWS_PER_GROUP = 16_384


class VerificationError(RunError):
    """What a run left behind is not what it planned: nothing is committed."""


@dataclass(frozen=True)
class Staged:
    """A verified file under a table's root that no reader sees yet.

    Args:
        path: relative to the table's root.
        size_bytes: of the file.
        n_rows: in it.
    """

    path: str
    size_bytes: int
    n_rows: int


def open_table(root: Location, name: str) -> DeltaTable | None:
    """The table `name` under `root` at its latest version; None where there is none yet."""
    options = storage_options(root)
    uri = (root / name).uri
    return DeltaTable(uri, storage_options=options) if DeltaTable.is_deltatable(uri, options) else None


def storage_options(root: Location) -> dict[str, str]:
    """What deltalake needs beside the AWS variables: leave to talk to an endpoint without TLS."""
    return {"allow_http": "true"} if root.on_s3 else {}


def _scan(root: Location, name: str) -> Any:
    """All rows of a table, as something DuckDB reads as a stream."""
    table = open_table(root, name)
    return SCHEMAS[name].empty_table() if table is None else table.to_pyarrow_dataset()


def plan(manifest: pa.Table, root: Location, model_id: str, *, retry_failed: bool, limit: int | None) -> pa.Table:
    """The tracks still to do: those that no tag and no permanent failure of the same content and model speaks for.

    Args:
        manifest: as `manifest.read` returns it.
        root: of the tables.
        model_id: of the model to tag with.
        retry_failed: permanent failures too.
        limit: the first so many by `track_id`; None: all.

    Returns:
        track_id, uri, content_id, attempts (int32, earlier failures of the same content and model); sorted by track_id.
    """
    database = duckdb.connect()
    database.register("manifest", manifest.select(["track_id", "uri", "content_id"]))
    database.register("tags", _scan(root, "tags"))
    database.register("failures", _scan(root, "failures"))
    return database.sql(
        f"""
        WITH failed AS (SELECT track_id, content_id, attempts, permanent FROM failures WHERE model_id = $model_id)
        SELECT m.track_id, m.uri, m.content_id, coalesce(f.attempts, 0)::INTEGER AS attempts
        FROM manifest m
        ANTI JOIN (SELECT track_id, content_id FROM tags WHERE model_id = $model_id) t
            ON m.track_id = t.track_id AND m.content_id IS NOT DISTINCT FROM t.content_id
        LEFT JOIN failed f ON m.track_id = f.track_id AND m.content_id IS NOT DISTINCT FROM f.content_id
        WHERE $retry_failed OR f.permanent IS NOT TRUE
        ORDER BY m.track_id {"" if limit is None else f"LIMIT {limit:d}"}
        """,
        params={"model_id": model_id, "retry_failed": retry_failed},
    ).to_arrow_table()


def merge(
    staged: list[tuple[Location, int]],
    planned: pa.Table,
    failures: pa.Table,
    root: Location,
    *,
    run_id: str,
    model_id: str,
) -> "Outcome":
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
    files: list[Staged] = []
    ids: list[pa.Array] = []
    for number, rows in enumerate(_batches(_read_staged(staged, ids), ROWS_PER_FILE)):
        at = root / "tags" / f"part-{run_id}-{number:05}.parquet"
        files.append(_write(rows, at, at.name))
    tagged, failed = pa.chunked_array(ids, pa.string()), failures["track_id"]
    found = pa.chunked_array([*tagged.chunks, *failed.chunks], pa.string())
    if len(found) != len(planned) or pc.count_distinct(found).as_py() != len(planned):
        raise VerificationError(
            f"{len(planned):,} tracks were planned, {len(found):,} were tagged or failed, "
            f"{pc.count_distinct(found).as_py():,} different ones"
        )
    strangers = found.filter(pc.invert(pc.is_in(found, value_set=planned["track_id"])))
    if len(strangers):
        raise VerificationError(f"{len(strangers):,} tracks were not planned, {strangers[0].as_py()!r} for one")
    return Outcome(run_id=run_id, model_id=model_id, tagged=tagged, failed=failed, tags=files, failures=failures)


def _read_staged(staged: list[tuple[Location, int]], ids: list[pa.Array]) -> Iterator[pa.Table]:
    for file, n_rows in staged:
        try:
            table = pq.read_table(pa.BufferReader(file.read_bytes()))
        except (OSError, pa.ArrowInvalid) as error:
            raise VerificationError(f"{file} cannot be read: {error}") from error
        if table.schema != TAGS or len(table) != n_rows:
            raise VerificationError(f"{file} has {len(table)} rows of {table.schema}, not {n_rows} rows of TAGS")
        ids.append(table["track_id"].combine_chunks())
        yield table


def _batches(tables: Iterator[pa.Table], n_rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `n_rows`, but for the last; never an empty one."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= n_rows:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _write(rows: pa.Table, at: Location, path: str) -> Staged:
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd", row_group_size=ROWS_PER_GROUP)
    data = memoryview(buffer.getvalue())
    at.write_bytes(data)
    return Staged(path, len(data), len(rows))


@dataclass(frozen=True, kw_only=True)
class Outcome:
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
    tags: list[Staged]
    failures: pa.Table


def commit(root: Location, outcome: Outcome, may_commit: Callable[[], None]) -> None:
    """Put a run into the tables; a transaction that is there already is not repeated.

    Args:
        root: of the tables.
        outcome: of the run.
        may_commit: raises where another run has taken over; asked before each transaction, after its table was opened.
            Whatever is committed between the two makes the transaction fail, so that nothing slips between.
    """
    new_failures: list[Staged] = []
    if len(outcome.failures):
        at = root / "failures" / f"part-{outcome.run_id}-00000.parquet"
        new_failures.append(_write(outcome.failures, at, at.name))
    _transact(root, "failures", f"{outcome.run_id}/failures", outcome, outcome.failed, new_failures, may_commit)
    planned = pa.chunked_array([*outcome.tagged.chunks, *outcome.failed.chunks], pa.string())
    _transact(root, "tags", f"{outcome.run_id}/tags", outcome, planned, outcome.tags, may_commit)
    _transact(root, "failures", f"{outcome.run_id}/cleared", outcome, outcome.tagged, [], may_commit)


#: Every transaction of ours carries this name too: Delta lets two that carry the same only commit one after the other.
_APPLICATION = "tag_catalogue"


def _transact(
    root: Location,
    name: str,
    transaction: str,
    outcome: Outcome,
    superseded: pa.ChunkedArray,
    new: list[Staged],
    may_commit: Callable[[], None],
) -> None:
    """Let rows of the `superseded` tracks leave a table and `new` files enter it, once."""
    options = storage_options(root)
    table = open_table(root, name) or DeltaTable.create(
        (root / name).uri, SCHEMAS[name], mode="ignore", storage_options=options
    )
    if table.transaction_version(transaction) is not None:
        return
    removed, kept = _supersede(table, root / name, superseded, transaction.replace("/", "-"))
    if not removed and not new:
        return
    may_commit()
    number = (table.transaction_version(_APPLICATION) or 0) + 1
    table.create_write_transaction(
        [*removed, *(_add(file) for file in [*kept, *new])],
        mode="append",
        schema=SCHEMAS[name],
        commit_properties=CommitProperties(
            app_transactions=[Transaction(transaction, 1), Transaction(_APPLICATION, number)],
            custom_metadata={"run_id": outcome.run_id, "model_id": outcome.model_id},
            max_commit_retries=0,
        ),
    )


def _add(file: Staged) -> AddAction:
    stats = json.dumps({"numRecords": file.n_rows})
    return AddAction(file.path, file.size_bytes, {}, int(time.time() * 1000), True, stats)


def _supersede(
    table: DeltaTable, at: Location, superseded: pa.ChunkedArray, prefix: str
) -> tuple[list[RemoveAction], list[Staged]]:
    """The table's files that hold superseded tracks, to be removed, and files of their other rows, to be added."""
    removed: list[RemoveAction] = []
    kept: list[Staged] = []
    for action in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        file = at / action["path"]
        with file.arrow_filesystem.open_input_file(file.path) as source:
            ids = pq.read_table(source, columns=["track_id"])["track_id"]
            others = pc.invert(pc.is_in(ids, value_set=superseded))
            n_others = pc.sum(others).as_py() or 0
            if n_others == len(ids):
                continue
            removed.append(RemoveAction(action["path"], True, int(time.time() * 1000), action["size_bytes"], {}))
            if n_others:
                path = f"part-{prefix}-kept-{len(kept):05}.parquet"
                kept.append(_write(pq.read_table(source).filter(others), at / path, path))
    return removed, kept


def export(root: Location, out: Location) -> int:
    """Write the tags' current state as one plain Parquet file, `out`, and return its number of rows."""
    table = open_table(root, "tags")
    sink = pa.BufferOutputStream()
    n_rows = 0
    with pq.ParquetWriter(sink, TAGS, compression="zstd") as writer:
        for batch in (
            [] if table is None else table.to_pyarrow_dataset(schema=TAGS).to_batches(batch_size=ROWS_PER_GROUP)
        ):
            writer.write_batch(batch)
            n_rows += len(batch)
    out.write_bytes(memoryview(sink.getvalue()))
    return n_rows
