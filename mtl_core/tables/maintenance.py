"""Maintenance of the tables: restore an earlier state, merge small files, delete old files. The caller holds the lease.

Every change is one transaction like those of a run: it happens completely or not at all, and fails if another program
changed the table. Readers that have a table open are not disturbed: its files stay until they are cleaned, days later.
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
from mtl_core.storage.location import Location
from mtl_core.tables import forgotten
from mtl_core.tables.data_files import (
    ROWS_PER_FILE,
    DataFile,
    active_files,
    dataset_of,
    delete_files,
    flat_columns,
    read_track_ids,
)
from mtl_core.tables.delta import (
    OTHER_TABLE_VERSION,
    commit_actions,
    open_table,
    open_tables,
    require_known_columns,
)
from mtl_core.tables.rewriting import (
    FileRemainder,
    find_rows,
    rewrite_files,
    rewrite_remainders,
    rewrite_without,
)


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """The sizes in bytes of a table's files before and after a change; after a dry run, of those that would be left."""

    before: list[int]
    after: list[int]

    def __str__(self) -> str:
        return (
            f"{len(self.before):,} files of {sum(self.before) / 1e6:,.1f} MB -> "
            f"{len(self.after):,} of {sum(self.after) / 1e6:,.1f} MB"
        )


def _sizes(files: list[DataFile]) -> list[int]:
    return [file.size_bytes for file in files]


def require_tables(root: Location) -> None:
    """Raise InputError if there are no tables, or if they have a column that this program does not know."""
    with as_input_error(root):
        open_tables(root)
        require_known_columns(root)


def compact(root: Location, check_lease: Callable[[], None]) -> dict[str, FileChange]:
    """Merge the small files of each table, those that are less than half full, in the order of their tracks."""
    changes = {}
    for name, table in open_tables(root).items():
        files = active_files(table)
        small = [file for file in files if 2 * file.n_rows < ROWS_PER_FILE]
        if len(small) > 1:
            schema = pa.schema(table.schema().to_arrow())
            merged = rewrite_files([FileRemainder(file) for file in small], root / name, "compacted", schema)
            commit_actions(table, small, merged, check_lease, about={"compacted": len(small)}, data_change=False)
            table = open_tables(root)[name]
        changes[name] = FileChange(before=_sizes(files), after=_sizes(active_files(table)))
    return changes


def restore(root: Location, run_id: str, check_lease: Callable[[], None]) -> dict[str, FileChange]:
    """Restore both tables to their state before a run's first commit. All that was committed since is undone.

    Like a commit, this has three transactions: the old failures are added, then the tags change, then the new failures
    are removed. So a track is in at least one table at any moment, and the same call completes an interrupted restore.
    Unfinished runs are deleted: their plans were made from the state that is undone. Columns added since stay; they are
    null in the restored rows. Rows of forgotten tracks are not restored.

    Raises:
        InputError: the logs contain no commit of the run, or files of the earlier state have been cleaned.
    """
    tables = open_tables(root)
    versions = _versions_before(tables, run_id)
    before = {name: _files_at(root, table, name, versions[name]) for name, table in tables.items()}
    check_lease()
    before = {name: _without_forgotten(root, tables[name], name, files) for name, files in before.items()}
    for folder in work_plan.runs_in_progress(root):
        work_plan.delete_plan(folder)

    for name, removes_new in (("failures", False), ("tags", True), ("failures", True)):
        table = open_table(root, name)
        if table is None:
            continue
        now, then = active_files(table), before[name]
        removed, added = _difference(now, then), _difference(then, now)
        if not removes_new:  # except for tracks whose old failures return: a track has one failure at most
            tracks = [pa.table({"track_id": part}) for part in read_track_ids(root / name, added)]
            removed, rewritten = rewrite_without(root / name, table, tracks, "restored")
            added = [*rewritten, *added]
        commit_actions(table, removed, added, check_lease, about={"restored_before": run_id})
    return {
        name: FileChange(before=_sizes(active_files(table)), after=_sizes(before[name]))
        for name, table in tables.items()
    }


def _without_forgotten(root: Location, table: DeltaTable, name: str, files: list[DataFile]) -> list[DataFile]:
    """Files of an earlier version; those with rows of forgotten tracks are rewritten without them."""
    if not files:
        return []
    forgotten_tracks = forgotten.find(dataset_of(root / name, files), root)  # reads no file if none is forgotten
    remainders = find_rows(root / name, files, [forgotten_tracks])
    removed, rewritten = rewrite_remainders(root / name, table, remainders, "restored")
    return [*_difference(files, removed), *rewritten]


def _difference(files: list[DataFile], others: list[DataFile]) -> list[DataFile]:
    paths = {file.path for file in others}
    return [file for file in files if file.path not in paths]


def _versions_before(tables: dict[str, DeltaTable], run_id: str) -> dict[str, int]:
    """The version of each table before a run's first commit to either.

    If the run changed only one table, its first commit there recorded the version of the other one.
    """
    first: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        commits = [commit for commit in table.history() if commit.get("run_id") == run_id]
        if commits:
            first[name] = min(commits, key=lambda commit: int(commit["version"]))
    if not first:
        raise InputError(f"the logs of the tables contain no commit of run {run_id!r}")
    other_version = next(int(commit[OTHER_TABLE_VERSION]) for commit in first.values())
    return {name: first[name]["version"] - 1 if name in first else other_version for name in tables}


def _files_at(root: Location, table: DeltaTable, name: str, version: int) -> list[DataFile]:
    """The files of an earlier version, as files of today's `table`."""
    old_table = open_table(root, name, version)
    if old_table is None:
        return []
    existing = {path for path, _ in _walk_files(root, name)}
    files = active_files(old_table)
    missing = [file for file in files if file.path not in existing]
    if missing:
        raise InputError(
            f"{root / name}: {len(missing):,} of {len(files):,} files of version {version} have been cleaned, "
            f"e.g. {missing[0].path}: it cannot be restored"
        )
    columns, old_columns = (flat_columns(pa.schema(opened.schema().to_arrow())) for opened in (table, old_table))
    return [file.with_null_columns(set(columns) - set(old_columns)) for file in files]


def _walk_files(root: Location, name: str) -> list[tuple[str, int]]:
    """(path relative to the table's root, bytes) of every file below it except its log."""
    return [(path, int(entry["size"])) for path, entry in (root / name).walk() if not path.startswith("_delta_log/")]


def clean(
    root: Location, *, keep_days: int, check_lease: Callable[[], None], dry_run: bool = False
) -> dict[str, FileChange]:
    """Delete the files that no recent version of a table needs, and what is left of runs that cannot be resumed.

    Plans and shards of runs that can be resumed stay. Their merged data files are deleted; they are merged again.

    Args:
        keep_days: readers that opened a table within this time are not disturbed, and `restore` can go back as far;
            with 0, only the latest version stays readable.
        dry_run: only count.
    """
    changes = {}
    unneeded: list[Location] = []
    since_s = time.time() - keep_days * 24 * 3600
    for name, table in open_tables(root).items():
        needed = _needed_since(root, name, table, since_s)
        files = _walk_files(root, name)
        unneeded += [root / name / path for path, _ in files if path not in needed]
        needed_sizes = [size for path, size in files if path in needed]
        changes[name] = FileChange(before=[size for _, size in files], after=needed_sizes)
    if not dry_run:
        delete_files(unneeded, check_lease)
        for folder in work_plan.runs_in_progress(root):
            if work_plan.load_plan(folder) is None:  # its writing was cut short, so no run will resume it
                folder.delete_tree()
    return changes


def _needed_since(root: Location, name: str, table: DeltaTable, since_s: float) -> set[str]:
    """The paths of the files of every version that was the latest at some moment since then."""
    needed = {file.path for file in active_files(table)}
    for commit in sorted(table.history(), key=lambda commit: -int(commit["version"])):  # the latest first
        version = open_table(root, name, int(commit["version"]))
        if version is not None:
            needed |= {file.path for file in active_files(version)}
        if commit["timestamp"] < 1000 * since_s:
            break
    return needed
