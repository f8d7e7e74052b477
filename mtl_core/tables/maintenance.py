"""Upkeep: what the tables need now and then, beside their nightly commits. The caller holds the lease of their root.

A reader that has a table open is never disturbed: what it reads stays where it is until it is cleaned away, days later.
Every change is a commit like a night's (`tables.transact`): whole or not at all, and none where a run slipped between.

Contents: `restore` (back to the state before a run), `compact` (many small parts -> few), `clean` (files that nobody
needs any more), `check` (the door).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from mtl_core.errors import InputError
from mtl_core.storage import work_plan
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location
from mtl_core.tables.data_files import (
    ROWS_PER_FILE,
    DataFile,
    FileRemainder,
    active_files,
    read_track_ids,
    rewrite_files,
)
from mtl_core.tables.delta import OTHER_TABLE_VERSION, TABLE_SCHEMAS, commit_actions, open_table, rewrite_without

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """What was, or would be, done to a table's files.

    Args:
        files, size_bytes: before.
        files_after, size_bytes_after: after.
    """

    files: int
    size_bytes: int
    files_after: int
    size_bytes_after: int

    def __str__(self) -> str:
        return (
            f"{self.files:,} files of {self.size_bytes / 1e6:,.1f} MB -> "
            f"{self.files_after:,} of {self.size_bytes_after / 1e6:,.1f} MB"
        )


def _change(before: list[DataFile], after: list[DataFile]) -> FileChange:
    return FileChange(
        files=len(before),
        size_bytes=sum(part.size_bytes for part in before),
        files_after=len(after),
        size_bytes_after=sum(part.size_bytes for part in after),
    )


def require_tables(root: Location) -> None:
    """
    Raises:
        InputError: there are no tables.
    """
    with as_input_error(root):
        _open_all(root)


def _open_all(root: Location) -> dict[str, DeltaTable]:
    tables = {name: open_table(root, name) for name in TABLE_SCHEMAS}
    found = {name: table for name, table in tables.items() if table is not None}
    if not found:
        raise InputError(f"{root}: no tables of tags and failures are there")
    return found


def compact(root: Location, check_lease: Callable[[], None]) -> dict[str, FileChange]:
    """Write the small parts of each table together: those that are less than half full, in the order of their tracks.

    Args:
        root: of the tables.
        check_lease: as for `tables.commit`.
    """
    changes = {}
    for name, table in _open_all(root).items():
        parts = active_files(table)
        small = [part for part in parts if 2 * part.n_rows < ROWS_PER_FILE]
        if len(small) > 1:
            merged = rewrite_files(
                [FileRemainder(part) for part in small], root / name, "compacted", TABLE_SCHEMAS[name]
            )
            commit_actions(table, small, merged, check_lease, about={"compacted": len(small)}, data_change=False)
        changes[name] = _change(parts, active_files(open_table(root, name) or table))
    return changes


def restore(root: Location, run_id: str, check_lease: Callable[[], None]) -> dict[str, FileChange]:
    """Put both tables back to what they were before a run's first commit; all that was committed since is undone.

    The same way as a commit: failures first join those that are, then the tags change, then the failures that were not
    there go; so no track is in neither table at any moment, and the same call completes what was cut short. Runs that
    are not finished are given up: their plans were made from what is undone.

    Args:
        root: of the tables.
        run_id: of the run to go back before.
        check_lease: as for `tables.commit`.

    Raises:
        InputError: no commit of the run is in the logs, or files of that state are cleaned away already.
    """
    found = _open_all(root)
    before = {name: _parts_at(root, name, version) for name, version in _versions_before(found, run_id).items()}
    check_lease()
    for folder in work_plan.runs_in_progress(root):
        work_plan.delete_plan(folder)
    about = {"restored_before": run_id}

    def swap(name: str, keep: Callable[[DeltaTable, list[DataFile]], tuple[list[DataFile], list[DataFile]]]) -> None:
        table = open_table(root, name)
        if table is not None:
            removed, added = keep(table, active_files(table))
            commit_actions(table, removed, added, check_lease, about=about)

    def exactly(table: DeltaTable, now: list[DataFile], then: list[DataFile]) -> tuple[list[DataFile], list[DataFile]]:
        return _without(now, then), _without(then, now)

    def failures_of_both(table: DeltaTable, now: list[DataFile]) -> tuple[list[DataFile], list[DataFile]]:
        then = before["failures"]
        ids = pa.chunked_array(read_track_ids(root / "failures", _without(then, now)), pa.string())
        superseded, kept = rewrite_without(root, "failures", table, ids, "restored")
        return superseded, [*kept, *_without(then, now)]

    swap("failures", failures_of_both)
    swap("tags", lambda table, now: exactly(table, now, before["tags"]))
    swap("failures", lambda table, now: exactly(table, now, before["failures"]))
    return {name: _change(active_files(table), before[name]) for name, table in found.items()}


def _without(parts: list[DataFile], others: list[DataFile]) -> list[DataFile]:
    paths = {part.path for part in others}
    return [part for part in parts if part.path not in paths]


def _versions_before(found: dict[str, DeltaTable], run_id: str) -> dict[str, int]:
    """The version of each table before a run's first commit to either.

    A run may have had nothing to change in one of them: the commit to the other tells that one's version.
    """
    first: dict[str, dict[str, Any]] = {}
    for name, table in found.items():
        commits = [commit for commit in table.history() if commit.get("run_id") == run_id]
        if commits:
            first[name] = min(commits, key=lambda commit: int(commit["version"]))
    if not first:
        raise InputError(f"no commit of run {run_id!r} is in the logs of the tables")
    beside = next(int(commit[OTHER_TABLE_VERSION]) for commit in first.values())
    return {name: first[name]["version"] - 1 if name in first else beside for name in found}


def _parts_at(root: Location, name: str, version: int) -> list[DataFile]:
    table = open_table(root, name, version)
    parts = [] if table is None else active_files(table)
    there = {path for path, _ in _data_files(root, name)}
    gone = [part for part in parts if part.path not in there]
    if gone:
        raise InputError(
            f"{root / name}: {len(gone):,} of {len(parts):,} files of version {version} were cleaned away, "
            f"{gone[0].path} for one: there is no way back to it"
        )
    return parts


def _data_files(root: Location, name: str) -> list[tuple[str, int]]:
    """(path relative to the table's root, bytes) of everything below it but its log."""
    return [(path, int(entry["size"])) for path, entry in (root / name).walk() if not path.startswith("_delta_log/")]


def clean(
    root: Location, *, keep_days: int, check_lease: Callable[[], None], dry_run: bool = False
) -> dict[str, FileChange]:
    """Delete the files that no version of a table needed in the last days, and what runs that are given up left.

    Of a run that is not finished, the plan and the work stay; the parts it may have merged are merged anew.

    Args:
        root: of the tables.
        keep_days: a reader that opened a table at most so long ago is not disturbed, and `restore` can go back so far;
            0: only what is read from now on is kept.
        check_lease: raises where another run has taken over.
        dry_run: count only.
    """
    changes = {}
    doomed: list[Location] = []
    for name, table in _open_all(root).items():
        needed = _needed_since(root, name, table, int(time.time() * 1000) - keep_days * _DAY_MS)
        files = _data_files(root, name)
        kept = [size for path, size in files if path in needed]
        doomed += [root / name / path for path, _ in files if path not in needed]
        changes[name] = FileChange(
            files=len(files),
            size_bytes=sum(size for _, size in files),
            files_after=len(kept),
            size_bytes_after=sum(kept),
        )
    if not dry_run:
        check_lease()
        for number, _ in enumerate(bounded_map(Location.delete, doomed), start=1):
            if number % 100 == 0:
                check_lease()
        for folder in work_plan.runs_in_progress(root):
            if work_plan.load_plan(folder) is None:  # its writing was cut short, so no run will resume it
                folder.delete_tree()
    return changes


def _needed_since(root: Location, name: str, table: DeltaTable, since_ms: int) -> set[str]:
    """The paths of the parts of every version that was the latest at some moment since then."""
    needed = {part.path for part in active_files(table)}
    for commit in sorted(table.history(), key=lambda commit: -int(commit["version"])):  # the latest first
        old = open_table(root, name, int(commit["version"]))
        if old is not None:
            needed |= {part.path for part in active_files(old)}
        if commit["timestamp"] < since_ms:
            break
    return needed
