"""Takedown: the rows of some tracks leave both tables. The caller holds the lease.

Each table changes in one transaction: it happens completely or not at all, and fails if another program changed the
table. Files without any of the rows stay as they are. Older versions keep the rows until they are purged (`purge`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset
from deltalake import DeltaTable

from mtl_core.errors import InputError
from mtl_core.storage.location import Location
from mtl_core.tables.data_files import active_files, read_track_ids
from mtl_core.tables.delta import commit_actions, open_tables
from mtl_core.tables.rewriting import FileRemainder, find_other_rows, find_rows, rewrite_remainders

#: Share of the rows of both tables together, 0 to 1: to remove more, a person has to confirm it.
MAX_SHARE_UNCONFIRMED = 0.05


@dataclass(frozen=True, kw_only=True)
class RowsToRemove:
    """Rows of a table that leave."""

    table: DeltaTable  # at the version that has them
    remainders: list[FileRemainder]  # the files with such rows
    n_total: int  # all rows of the table

    @property
    def n_rows(self) -> int:
        """Number of rows that leave."""
        return sum(len(remainder.removed_rows) for remainder in self.remainders)


def rows_of(root: Location, tracks: pa.Table) -> dict[str, RowsToRemove]:
    """The rows of some tracks (column `track_id`) in each table. Raises InputError if there is no table."""
    return _find(root, lambda name, table: find_rows(root / name, active_files(table), [tracks]))


def rows_of_others(root: Location, kept: pa.Table | pyarrow.dataset.Dataset) -> dict[str, RowsToRemove]:
    """The rows of all tracks but those in the column `track_id` of `kept`. Raises InputError if there is no table."""
    return _find(root, lambda name, table: find_other_rows(root / name, active_files(table), kept))


def _find(root: Location, find: Callable[[str, DeltaTable], list[FileRemainder]]) -> dict[str, RowsToRemove]:
    return {
        name: RowsToRemove(
            table=table, remainders=find(name, table), n_total=sum(file.n_rows for file in active_files(table))
        )
        for name, table in open_tables(root).items()
    }


def read_ids(root: Location, rows: dict[str, RowsToRemove]) -> Iterator[tuple[str, str]]:
    """(table, track_id) of rows that leave, in the order of the tables."""
    for name, of_table in rows.items():
        ids = read_track_ids(root / name, [remainder.file for remainder in of_table.remainders])
        for remainder, ids_of_file in zip(of_table.remainders, ids, strict=True):
            for track_id in ids_of_file.take(pa.array(remainder.removed_rows)).to_pylist():
                yield name, track_id


def share(rows: dict[str, RowsToRemove]) -> float:
    """The share of the rows of both tables together that leaves, 0 to 1."""
    return sum(part.n_rows for part in rows.values()) / max(1, sum(part.n_total for part in rows.values()))


def require_small_share(root: Location, rows: dict[str, RowsToRemove]) -> None:
    """Raise InputError if more than `MAX_SHARE_UNCONFIRMED` of the rows would leave."""
    if share(rows) > MAX_SHARE_UNCONFIRMED:
        n_rows, n_total = (sum(getattr(part, name) for part in rows.values()) for name in ("n_rows", "n_total"))
        raise InputError(
            f"{root}: {n_rows:,} of {n_total:,} rows would be removed, {share(rows):.1%}: more than "
            f"{MAX_SHARE_UNCONFIRMED:.0%} needs --yes; --dry-run lists them"
        )


def remove(root: Location, rows: dict[str, RowsToRemove], check_lease: Callable[[], None], reason: str) -> None:
    """Remove rows that `rows_of` or `rows_of_others` found, in one transaction a table.

    Args:
        reason: a word, stored in the log as the key of the number of removed rows.

    Raises:
        RunError: another program changed a table since.
    """
    for name, of_table in rows.items():
        removed, added = rewrite_remainders(root / name, of_table.table, of_table.remainders, f"{reason}-kept")
        commit_actions(of_table.table, removed, added, check_lease, about={reason: of_table.n_rows})
