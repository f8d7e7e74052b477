"""mtl-core maintain_tables --out URI [--restore-before RUN_ID | --compact --clean [--keep-days N] [--dry-run]]"""

from dataclasses import dataclass

from mtl_core import cli
from mtl_core.storage import lease
from mtl_core.storage.location import Location, check_reachable
from mtl_core.tables import maintenance


@dataclass(frozen=True, kw_only=True)
class Options:
    """Take care of the tables that tag_catalogue writes: go back before a run, merge small files, delete old ones."""

    out: str
    """Folder of the tables, the --out of tag_catalogue."""
    restore_before: str | None = None
    """Run to go back before: both tables become what they were before its first commit, the unfinished run is given up.
    """
    compact: bool = False
    """Write the tables' small files together; beside --clean, before it."""
    clean: bool = False
    """Delete the files that no version of the last days needs, and what runs that were given up left."""
    keep_days: int = 7
    """Days that --clean keeps, 1 or more: a reader that opened the tables since then is not disturbed, and
    --restore-before can go back so far.
    """
    dry_run: bool = False
    """With --clean: say what would be deleted, and delete nothing."""

    def __post_init__(self) -> None:
        if self.keep_days < 1:
            raise ValueError(f"--keep-days {self.keep_days}: allowed is 1 or more")
        if self.restore_before is not None and (self.compact or self.clean):
            raise ValueError("--restore-before stands alone: look at what it restored before --compact or --clean")
        if self.restore_before is None and not self.compact and not self.clean:
            raise ValueError("nothing to do: one of --restore-before, --compact and --clean is needed")
        if self.dry_run and (self.compact or not self.clean):
            raise ValueError("--dry-run goes with --clean alone")


def main(options: Options) -> None:
    with cli.flag_errors():
        out = Location(options.out)
    check_reachable(out)
    maintenance.require_tables(out)  # no lease is left where there are no tables
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


def _print(what: str, changes: dict[str, maintenance.FileChange]) -> None:
    for name, change in changes.items():
        print(f"{name} {what}: {change}")
