"""mtl-core maintain_tables --out URI [--restore-before RUN_ID | --compact --clean [--keep-days N] [--dry-run]]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.storage import lease
from mtl_core.storage.checks import check_reachable
from mtl_core.storage.location import Location
from mtl_core.tables import maintenance


@dataclass(frozen=True, kw_only=True)
class Options:
    """Maintain the tables of tag_catalogue: restore an earlier state, merge small files, delete old files."""

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
    dry_run: bool = False
    """With --clean: print what would be deleted, and delete nothing."""

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"--keep-days {self.keep_days}: allowed is 1 or more")
        if self.restore_before is not None and (self.compact or self.clean):
            raise ValueError(
                "--restore-before cannot be combined with --compact or --clean: check the restored tables first"
            )
        if self.restore_before is None and not self.compact and not self.clean:
            raise ValueError("nothing to do: --restore-before, --compact or --clean is needed")
        if self.dry_run and (self.compact or not self.clean):
            raise ValueError("--dry-run can only be combined with --clean")


def main(options: Options) -> None:
    with cli.flag_errors():
        out = Location(options.out)
    check_reachable(out)
    maintenance.require_tables(out)  # before the lease, which would create the folder
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


def _print(action: str, changes: dict[str, maintenance.FileChange]) -> None:
    for name, change in changes.items():
        print(f"{name} {action}: {change}")
