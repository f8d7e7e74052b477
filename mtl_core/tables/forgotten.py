"""Forgotten tracks: those that the tables must not hold again, in `OUT/forgotten.parquet`.

The file has the columns of `FORGOTTEN`, sorted by hash, and never a track_id. A hash is the SHA-256 of the salt and the
track_id in UTF-8. The salt is random, is drawn when the file is first written, and is in the file's metadata. So the
file does not list the tracks, but who has it can check whether an id that they know is in it.

The file is held in memory, about 40 bytes a track. It is replaced conditionally, so that a paused process that wakes up
cannot undo what another has added.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from mtl_core.errors import InputError, RunError, one_line
from mtl_core.schema import FORGOTTEN, SALT
from mtl_core.storage.location import Location, VersionConflict
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.row_file import RowFile
from mtl_core.storage.sql import fetch_table, open_database, scan_columns

FILE = "forgotten.parquet"
_SALT_BYTES = 32
_HASH = "unhex(sha256($salt || track_id))"


@dataclass(frozen=True, kw_only=True)
class _ForgottenFile:
    salt: str
    rows: pa.Table  # of FORGOTTEN
    version: str | None  # of the file; None if there is none


def find(tracks: pa.Table | pyarrow.dataset.Dataset | RowFile, root: Location) -> pa.Table:
    """Those of some tracks that are forgotten.

    Args:
        tracks: with a column `track_id`.
        root: folder of the tables.

    Returns:
        `track_id`.

    Raises:
        InputError: OUT/forgotten.parquet cannot be read.
    """
    file = _read(root)
    if not len(file.rows):
        return pa.table({"track_id": pa.array([], pa.string())})
    return _query(file, tracks, f"SELECT track_id FROM tracks SEMI JOIN forgotten ON {_HASH} = forgotten.track_hash")


def add(root: Location, tracks: pa.Table, check_lease: Callable[[], None]) -> int:
    """Add tracks (column `track_id`) to the forgotten ones. Returns how many were not among them.

    Raises:
        InputError: OUT/forgotten.parquet cannot be read.
        RunError: another program changed it.
    """
    file = _read(root)
    hashes = _query(
        file,
        tracks,
        f"WITH hashes AS (SELECT DISTINCT {_HASH} AS track_hash FROM tracks)"
        " SELECT track_hash FROM hashes ANTI JOIN forgotten USING (track_hash)",
    )["track_hash"]
    if len(hashes):
        now = pa.repeat(pa.scalar(datetime.now(UTC), FORGOTTEN.field("forgotten_at").type), len(hashes))
        added = pa.table([hashes.cast(FORGOTTEN.field("track_hash").type), now], schema=FORGOTTEN)
        _replace(root, file, pa.concat_tables([file.rows, added]), check_lease)
    return len(hashes)


def remove(root: Location, tracks: pa.Table, check_lease: Callable[[], None]) -> int:
    """Allow tracks (column `track_id`) again. Returns how many of them were forgotten. Raises errors as `add`."""
    file = _read(root)
    stay = _query(
        file,
        tracks,
        f"WITH hashes AS (SELECT {_HASH} AS track_hash FROM tracks)"
        " SELECT track_hash, forgotten_at FROM forgotten ANTI JOIN hashes USING (track_hash)",
    )
    n_removed = len(file.rows) - len(stay)
    if n_removed:
        _replace(root, file, stay.cast(FORGOTTEN), check_lease)
    return n_removed


def _query(file: _ForgottenFile, tracks: pa.Table | pyarrow.dataset.Dataset | RowFile, query: str) -> pa.Table:
    """The rows of an SQL query over `tracks` (column `track_id`), `forgotten` and $salt."""
    with open_database() as connection:
        connection.register("forgotten", file.rows)
        connection.register("tracks", scan_columns(tracks, ["track_id"]))
        return fetch_table(connection, query, {"salt": file.salt})


def _read(root: Location) -> _ForgottenFile:
    """The file, or an empty one with a new salt."""
    location = root / FILE
    content = location.read_with_etag()
    if content is None:
        return _ForgottenFile(salt=secrets.token_hex(_SALT_BYTES), rows=FORGOTTEN.empty_table(), version=None)
    data, version = content
    try:
        rows = pq.read_table(pa.BufferReader(data), use_threads=False)
    except pa.ArrowInvalid as error:
        raise InputError(f"{location} cannot be read, restore it from a copy: {one_line(error)}") from None
    salt = (rows.schema.metadata or {}).get(SALT, b"").decode()
    if not rows.schema.equals(FORGOTTEN) or len(salt) != 2 * _SALT_BYTES:
        raise InputError(f"{location} is no list of forgotten tracks with its salt: restore it from a copy")
    return _ForgottenFile(salt=salt, rows=rows.replace_schema_metadata(None), version=version)


def _replace(root: Location, file: _ForgottenFile, rows: pa.Table, check_lease: Callable[[], None]) -> None:
    table = rows.sort_by("track_hash").replace_schema_metadata({SALT: file.salt.encode()})
    check_lease()
    try:
        (root / FILE).compare_and_swap(bytes(to_bytes(table, compression="zstd")), file.version)
    except VersionConflict:
        raise RunError(f"{root / FILE}: another program changed it at the same time") from None
