"""The files of a catalogue, on a disk, on S3, or in an inventory, as the table `files` of a database."""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from mtl_core.storage import inventory as inventories
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.inventory import Inventory
from mtl_core.storage.location import Location, content_id
from mtl_core.storage.object_listing import FILES, list_objects
from mtl_core.storage.sql import insert

_FILES_PER_BATCH = 16_384
_PAGES_PER_BATCH = 32


@dataclass(kw_only=True)
class Examples:
    """How many there are of something, and the first of them in their order."""

    count: int = 0
    first: str | None = None

    def add(self, name: str) -> None:
        self.count += 1
        self.first = name if self.first is None else min(self.first, name)

    @classmethod
    def of(cls, database: duckdb.DuckDBPyConnection, paths: str) -> Self:
        """Of an SQL query with the column `path`."""
        count, first = database.sql(f"SELECT count(*), min(path) FROM ({paths})").fetchall()[0]
        return cls(count=count, first=first)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What lies in a catalogue but cannot be used."""

    unreadable_folders: Examples = field(default_factory=Examples)  # on a disk; with all that lies below them
    undecodable_names: Examples = field(default_factory=Examples)  # of files, not UTF-8, as `repr` prints them


def load_files(database: duckdb.DuckDBPyConnection, catalogue: Location, inventory: Inventory | None) -> LeftOut:
    """Create the table `files`, with the columns of `FILES`, from a listing of the catalogue or from an inventory.

    Raises:
        InputError: the catalogue does not exist or cannot be listed, or as `inventory.load_files`.
    """
    database.execute("CREATE TABLE files (path VARCHAR, content_id VARCHAR, size_bytes BIGINT)")
    left_out = LeftOut()
    if inventory is not None:
        inventories.load_files(database, inventory, catalogue)
        return left_out
    check_reachable(catalogue, reads=False)
    with as_input_error(catalogue):
        if catalogue.on_s3:
            insert(database, "files", _join_pages(list_objects(catalogue)))
        elif catalogue.exists():
            insert(database, "files", _list_disk(catalogue, left_out))
        else:
            raise FileNotFoundError
    return left_out


def _join_pages(pages: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    pages = iter(pages)
    while several := list(itertools.islice(pages, _PAGES_PER_BATCH)):
        yield pa.Table.from_batches(several)


def _list_disk(catalogue: Location, left_out: LeftOut) -> Iterator[pa.Table]:
    unreadable: set[str] = set()

    def leave_out(error: OSError) -> None:
        path = str(error.filename)
        if path == catalogue.path:
            raise error
        is_folder = os.path.isdir(path)  # noqa: PTH112 (that of Path raises the same error again)
        unreadable.add(path if is_folder else str(Path(path).parent))

    entries = catalogue.entries(on_error=leave_out)
    while batch := list(itertools.islice(entries, _FILES_PER_BATCH)):
        rows = []
        for path, entry in batch:
            if _is_text(path):
                rows.append((path, content_id(entry), entry["size"]))
            else:
                left_out.undecodable_names.add(repr(path))
        yield pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=FILES)
    for folder in unreadable:
        left_out.unreadable_folders.add(folder)


def _is_text(path: str) -> bool:
    """Whether a file name is valid UTF-8; Python holds the other bytes as lone surrogates."""
    return path.encode(errors="replace").decode() == path
