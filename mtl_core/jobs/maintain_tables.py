"""mtl-core maintain_tables --out URI [--restore-before RUN_ID | --compact --clean | --forget FILE | --prune-to URI]"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset

from mtl_core import cli, log
from mtl_core.dataset import manifest, track_list
from mtl_core.pipelines import takedown
from mtl_core.pipelines.takedown import Purged
from mtl_core.storage import lease
from mtl_core.storage.checks import check_writable, old_object_versions
from mtl_core.storage.lease import Lease
from mtl_core.storage.location import Location
from mtl_core.tables import forgotten, maintenance
from mtl_core.tables import takedown as rows


@dataclass(frozen=True, kw_only=True)
class Options:
    """Maintain the tables of tag_catalogue: restore an earlier state, merge or delete files, remove tracks."""

    out: str
    """Folder of the tables, the --out of tag_catalogue."""
    restore_before: str | None = None
    """Run to undo: both tables get the state from before its first commit; unfinished runs are deleted."""
    compact: bool = False
    """Merge the small files of the tables. With --clean, this is done first."""
    clean: bool = False
    """Delete the files that no version of the last days needs, and what is left of deleted runs."""
    keep_days: int = 7
    """Days that --clean keeps, 1 or more: readers that opened the tables within them are not disturbed, and
    --restore-before can go back as far."""
    forget: str | None = None
    """File of track_ids, one a line, or Parquet with a column track_id. Their rows are removed from both tables, and
    later nights skip them."""
    prune_to: str | None = None
    """Manifest: the rows of all tracks that it does not have are removed from both tables. They are not forgotten."""
    unforget: str | None = None
    """File of track_ids as for --forget: later nights may tag them again."""
    yes: bool = False
    """Let --forget and --prune-to remove more than 5 % of the rows."""
    purge_now: bool = False
    """With --forget or --prune-to: also delete older versions of the tables, and the unfinished runs and run records
    with ids of removed tracks. Time travel ends there, and readers of older versions get an error."""
    dry_run: bool = False
    """With --clean: print what would be deleted. With --forget or --prune-to: print each row that would be removed, as
    table and track_id. Nothing is changed."""

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"--keep-days {self.keep_days}: allowed is 1 or more")
        tidies = self.compact or self.clean
        tasks = {
            "--restore-before": self.restore_before is not None,
            "--compact or --clean": tidies,
            "--forget": self.forget is not None,
            "--prune-to": self.prune_to is not None,
            "--unforget": self.unforget is not None,
        }
        wanted = [task for task, is_wanted in tasks.items() if is_wanted]
        if not wanted:
            raise ValueError(f"nothing to do: {', '.join(tasks)} is needed")
        if len(wanted) > 1:
            raise ValueError(f"{wanted[0]} cannot be combined with {wanted[1]}: check the tables in between")
        removes = self.forget is not None or self.prune_to is not None
        for flag, is_set in (("--yes", self.yes), ("--purge-now", self.purge_now)):
            if is_set and not removes:
                raise ValueError(f"{flag} can only be combined with --forget or --prune-to")
        if self.dry_run and (self.compact or not (self.clean or removes)):
            raise ValueError("--dry-run can only be combined with --clean, --forget or --prune-to")


def main(options: Options) -> None:
    with cli.flag_errors():
        out = Location(options.out)
        listed = [Location(uri) for uri in (options.forget, options.unforget) if uri is not None]
        manifest_at = None if options.prune_to is None else Location(options.prune_to)
    check_writable(out)
    maintenance.require_tables(out)  # before the lease, which would create the folder
    tracks = track_list.read(listed[0]) if listed else None
    kept = None if manifest_at is None else manifest.scan(manifest_at)
    with lease.acquire(out) as lock:
        if options.restore_before is not None:
            _print(
                f"restored before {options.restore_before}",
                maintenance.restore(out, options.restore_before, lock.renew),
            )
        if options.compact:
            _print("compacted", maintenance.compact(out, lock.renew))
        if options.clean:
            cleaned = maintenance.clean(
                out, keep_days=options.keep_days, check_lease=lock.renew, dry_run=options.dry_run
            )
            _print("would be cleaned" if options.dry_run else "cleaned", cleaned)
        if tracks is not None and options.unforget is not None:
            n_allowed = forgotten.remove(out, tracks, lock.renew)
            print(f"{n_allowed:,} of {len(tracks):,} tracks were forgotten; later nights may tag them again")
        elif tracks is not None or kept is not None:
            _take_down(options, out, lock, tracks, kept)


def _print(action: str, changes: dict[str, maintenance.FileChange]) -> None:
    for name, change in changes.items():
        print(f"{name} {action}: {change}")


def _take_down(
    options: Options, out: Location, lock: Lease, tracks: pa.Table | None, kept: pyarrow.dataset.Dataset | None
) -> None:
    """Remove `tracks`, or else all but those of `kept`."""
    confirmed, purge_now = options.yes, options.purge_now
    if options.dry_run:
        found = rows.rows_of(out, tracks) if tracks is not None else rows.rows_of_others(out, kept)
        for name, track_id in rows.read_ids(out, found):
            print(f"{name}\t{track_id}")
        counts = {name: of_table.n_rows for name, of_table in found.items()}
        log.event("forecast", f"would be removed: {_describe_rows(counts)}, {rows.share(found):.1%} of all", **counts)
        return
    if tracks is not None:
        result = takedown.forget(out, tracks, lock, confirmed=confirmed, purge_now=purge_now)
        print(f"{len(tracks):,} tracks are forgotten, {result.n_added:,} of them since now")
    else:
        result = takedown.prune(out, kept, lock, confirmed=confirmed, purge_now=purge_now)
    print(f"removed: {_describe_rows(result.rows)}")
    for run_id in result.holding:
        then = "drops" if tracks is not None else "tags"
        log.warning(f"the unfinished run {run_id} has removed tracks in its plan, and {then} them")
    if result.purged is not None:
        _print_purged(out, result.purged)


def _describe_rows(n_rows: dict[str, int]) -> str:
    return ", ".join(f"{count:,} rows of {name}" for name, count in n_rows.items())


def _print_purged(out: Location, purged: Purged) -> None:
    files = ", ".join(f"{count:,} files of {name}" for name, count in purged.files.items())
    print(f"deleted: {files}, {len(purged.runs):,} unfinished runs, {len(purged.records):,} run records")
    print("time travel ends here: no older version of the tables can be read or restored")
    for name in purged.others:
        log.warning(f"{out / name} is not of this program and may hold ids: it stays")
    versions = old_object_versions(out)
    if versions is not None:
        log.warning(versions)
