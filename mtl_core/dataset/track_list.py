"""Track list: a file that names tracks by their track_id.

It is a text file in UTF-8 with one id a line, or, if its name ends in `.parquet`, a Parquet file with a column
`track_id`, such as a part of a manifest. Spaces belong to an id. Empty lines are passed over.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.errors import InputError, one_line
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location
from mtl_core.storage.sql import fetch_table, insert, open_database

_IDS_AT_A_TIME = 65_536
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors begin a file with it


def read(location: Location) -> pa.Table:
    """Read and check a track list.

    Returns:
        `track_id`, each once, sorted.

    Raises:
        InputError: the file does not exist, has no id, is no text in UTF-8 or no Parquet file with ids.
    """
    check_reachable(location)
    parts = _parquet_ids(location) if location.name.endswith(".parquet") else _line_ids(location)
    with as_input_error(location), open_database() as connection:
        connection.execute("CREATE TABLE ids (track_id VARCHAR)")
        insert(connection, "ids", (pa.table({"track_id": ids}) for ids in parts))
        tracks = fetch_table(connection, "SELECT DISTINCT track_id FROM ids ORDER BY track_id")
    if not len(tracks):
        raise InputError(f"{location}: no track_id is in it: one a line is needed")
    return tracks


def _line_ids(location: Location) -> Iterator[pa.Array]:
    with location.filesystem.open(location.path, "rb") as file:
        ids: list[str] = []
        for number, line in enumerate(file, start=1):
            data = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            try:
                track_id = data.rstrip(b"\r\n").decode()
            except UnicodeDecodeError:
                raise InputError(f"{location}: line {number} is not UTF-8") from None
            if track_id:
                ids.append(track_id)
            if len(ids) == _IDS_AT_A_TIME:
                yield pa.array(ids, pa.string())
                ids = []
        yield pa.array(ids, pa.string())


def _parquet_ids(location: Location) -> Iterator[pa.Array]:
    with location.open_arrow() as source:
        try:
            parquet = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise InputError(f"{location} is not a Parquet file: {one_line(error)}") from None
        if "track_id" not in parquet.schema_arrow.names:
            raise InputError(f"{location} has no column 'track_id', but {parquet.schema_arrow.names}")
        for batch in parquet.iter_batches(_IDS_AT_A_TIME, columns=["track_id"], use_threads=False):
            ids = batch["track_id"]
            if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
                raise InputError(f"{location}: column 'track_id' is {ids.type}, not string")
            if ids.null_count:
                raise InputError(f"{location}: {ids.null_count:,} rows without track_id: every row needs one")
            yield ids.cast(pa.string())
