"""Takedown: tracks leave the tables, and on request everything under OUT that holds their ids.

`forget` removes named tracks, and later nights skip them. `prune` removes the tracks that a manifest does not have;
they are tagged again if a later manifest has them.

    OUT/forgotten.parquet     salted hashes of forgotten ids, written before any row is removed
    OUT/tags, OUT/failures    lose the rows, in one transaction each
    OUT/runs, OUT/_run        with purge_now: lose the records and unfinished runs that hold ids of tracks that left

A commit that a night has begun is ended first. Each step can be repeated, so the same call completes an interrupted
takedown.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from mtl_core.errors import RunError
from mtl_core.pipelines.night import run_end, run_record
from mtl_core.storage import work_plan
from mtl_core.storage.concurrency import PARALLEL_SMALL_FILES, bounded_map
from mtl_core.storage.lease import LEASE_FILE, Lease
from mtl_core.storage.location import Location
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.sql import fetch_table, open_database, scan_columns
from mtl_core.tables import forgotten, purge, takedown
from mtl_core.tables.delta import TABLE_SCHEMAS
from mtl_core.tables.takedown import RowsToRemove

#: Of some tracks (column `track_id`), those that have left.
FindGone = Callable[[pa.Table | RowFile], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What a purge deleted, and what it did not."""

    files: dict[str, int]  # of each table, of its data and its log
    runs: list[str]  # ids of unfinished runs
    records: list[str]  # names of run records
    others: list[str]  # names of files and folders under OUT that are not of this program: they stay


@dataclass(frozen=True, kw_only=True)
class TakedownResult:
    """What a takedown did."""

    rows: dict[str, int]  # removed rows of each table
    n_added: int  # tracks that were not forgotten before; 0 for a pruning
    holding: list[str]  # unfinished runs that still hold ids of removed tracks
    purged: Purged | None


def forget(
    out: Location, tracks: pa.Table, lock: Lease, *, confirmed: bool = False, purge_now: bool = False
) -> TakedownResult:
    """Remove tracks for good: later nights skip them.

    Args:
        out: folder of the tables.
        tracks: column `track_id`; those that are in no table are forgotten, too.
        lock: of `out`.
        confirmed: also if more than `takedown.MAX_SHARE_UNCONFIRMED` of the rows would be removed.
        purge_now: also delete what else holds ids of forgotten tracks under `out`, those of earlier calls included.

    Raises:
        InputError: too many rows would be removed, there are no tables, or OUT/forgotten.parquet cannot be read.
        RunError: another program changed the tables. The same call completes the takedown.
    """
    run_end.end_begun_commits(out, lock)
    rows = takedown.rows_of(out, tracks)
    if not confirmed:
        takedown.require_small_share(out, rows)
    n_added = forgotten.add(out, tracks, lock.renew)  # first, so that no night brings a removed row back
    takedown.remove(out, rows, lock.renew, "forgotten")

    def find_gone(some: pa.Table) -> pa.Table:
        return forgotten.find(some, out)

    purged = _purge(out, lock, find_gone, find_gone) if purge_now else None
    return _result(out, rows, n_added, find_gone, purged)


def prune(
    out: Location,
    manifest: pyarrow.dataset.Dataset,
    lock: Lease,
    *,
    confirmed: bool = False,
    purge_now: bool = False,
) -> TakedownResult:
    """Remove the tracks that a manifest does not have. Arguments and errors as of `forget`."""
    run_end.end_begun_commits(out, lock)
    rows = takedown.rows_of_others(out, manifest)
    if not confirmed:
        takedown.require_small_share(out, rows)
    takedown.remove(out, rows, lock.renew, "pruned")

    def find_gone(some: pa.Table | RowFile) -> pa.Table:
        return _join(some, "ANTI", manifest)

    def find_gone_texts(texts: pa.Table) -> pa.Table:
        """Few texts are ids: those that a table has or had."""
        stored = pa.concat_tables([texts.slice(0, 0), *(_join(ids, "SEMI", texts) for ids in purge.stored_ids(out))])
        return find_gone(stored)

    purged = _purge(out, lock, find_gone, find_gone_texts) if purge_now else None
    return _result(out, rows, 0, find_gone, purged)


def _join(tracks: pa.Table | RowFile, kind: str, others: pa.Table | pyarrow.dataset.Dataset) -> pa.Table:
    """The tracks that are (SEMI) or are not (ANTI) among others; both have a column `track_id`."""
    with open_database() as connection:
        connection.register("tracks", scan_columns(tracks, ["track_id"]))
        connection.register("others", scan_columns(others, ["track_id"]))
        return fetch_table(connection, f"SELECT track_id FROM tracks {kind} JOIN others USING (track_id)")


def _result(
    out: Location, rows: dict[str, RowsToRemove], n_added: int, find_gone: FindGone, purged: Purged | None
) -> TakedownResult:
    return TakedownResult(
        rows={name: of_table.n_rows for name, of_table in rows.items()},
        n_added=n_added,
        holding=_runs_that_hold(out, find_gone),
        purged=purged,
    )


def _runs_that_hold(out: Location, find_gone: FindGone) -> list[str]:
    """The ids of the unfinished runs whose plan has a track that left."""
    plans = [work_plan.load_plan(folder) for folder in work_plan.runs_in_progress(out)]
    return [
        plan.run_id for plan in plans if plan is not None and len(find_gone(work_plan.read_columns(plan, ["track_id"])))
    ]


def _purge(out: Location, lock: Lease, find_gone: FindGone, find_gone_texts: FindGone) -> Purged:
    """Delete what holds ids of tracks that left. The tables come last: their files tell which ids there were."""
    others = _others(out)
    records = _records_that_hold(out, find_gone_texts)
    lock.renew()
    for record in records:
        record.delete()
    holding = _runs_that_hold(out, find_gone)
    cut_short = [folder.name for folder in work_plan.runs_in_progress(out) if work_plan.load_plan(folder) is None]
    for run_id in (*holding, *cut_short):
        lock.renew()
        work_plan.delete_plan(out / work_plan.RUNS_IN_PROGRESS / run_id)
    files = purge.purge(out, lock.renew)
    return Purged(files=files, runs=holding, records=[record.name for record in records], others=others)


def _others(out: Location) -> list[str]:
    """The names directly under OUT that are not of this program."""
    own = {*TABLE_SCHEMAS, run_record.FOLDER, work_plan.RUNS_IN_PROGRESS}
    own |= {name for file in (LEASE_FILE, forgotten.FILE) for name in (file, f".{file}.lock")}
    return sorted(out.names() - own)


def _records_that_hold(out: Location, find_gone_texts: FindGone) -> list[Location]:
    """The run records with the id of a track that left; and drafts, which a killed run leaves beside them."""
    folder = out / run_record.FOLDER
    files = [folder / path for path, _ in folder.walk()]
    drafts = [file for file in files if not file.name.endswith((".json", run_record.METRICS))]
    records = [file for file in files if file.name.endswith(".json")]
    possible = dict(zip(records, bounded_map(_ids_in_record, records, PARALLEL_SMALL_FILES), strict=True))
    texts = pa.array(sorted(set().union(*possible.values())), pa.string())
    gone = set(find_gone_texts(pa.table({"track_id": texts}))["track_id"].to_pylist())
    return drafts + [record for record in records if not gone.isdisjoint(possible[record])]


def _ids_in_record(file: Location) -> set[str]:
    """The texts in a record that can be an id."""
    try:
        record = json.loads(file.read_bytes())
    except ValueError as error:
        raise RunError(f"{file} is no record, delete it and repeat the command: {error}") from None
    return {part for text in _texts(record) for part in _possible_ids(text)}


def _texts(value: Any) -> Iterator[str]:
    """The texts of a JSON value, and the keys that are no names of this program; without what it says of itself."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not key.isidentifier():
                yield key
            if key not in _OWN_TEXTS:
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
#: Keys of a record whose texts cannot hold a track_id, though some could be one: "audio".
_OWN_TEXTS = ("run_id", "source", "exit", "model_id", "versions", "ended_at")


def _possible_ids(text: str) -> Iterator[str]:
    """The parts of a text that can be an id: the whole, what is in quotes, and the end of each after a slash."""
    quoted = [part for pair in _QUOTED.findall(text) for part in pair if part]
    for part in (text, *quoted):
        for stripped in {part, part.rstrip(".:")}:
            yield stripped
            yield from (stripped[match.end() :] for match in re.finditer("/", stripped))
