"""labels.csv: the labels of a catalogue's files as one UTF-8 CSV file.

The column `path` is relative to the catalogue, and taken as it is. `track_id`, `artist`, `language` and `album` are
optional; all other columns are carried into the manifest. Of their cells, spaces at the ends do not count, and an empty
cell is None.
"""

import csv
import io
from collections import Counter

from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST, MELS
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location

LABEL_COLUMNS = ("track_id", "artist", "language", "album")
_RESERVED = (set(MANIFEST.names) | set(MELS.names)) - set(LABEL_COLUMNS)


def read_label_file(location: Location) -> dict[str, dict[str, str | None]]:
    """Read labels.csv: path -> the other columns of its row.

    Raises:
        InputError: the file does not exist or is not UTF-8 CSV, it has no column `path` or a reserved column name, or
            a path occurs twice.
    """
    check_reachable(location)
    with as_input_error(location):
        content = location.read_bytes()
    csv.field_size_limit(len(content) + 1)  # a cell may hold lyrics; by default 128 KiB are allowed
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header, *lines = [line for line in reader if line] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{location} is not a UTF-8 CSV file: {error}") from None
    header = [name.strip() for name in header]
    if "path" not in header:
        raise InputError(f"{location} has no column 'path': its columns are {header}")
    if "" in header:
        raise InputError(f"{location}: a column has no name: the columns are {header}")
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise InputError(f"{location}: the column names {repeated} occur more than once: rename them")
    reserved = sorted(_RESERVED & set(header))
    if reserved:
        raise InputError(f"{location}: the column names {reserved} are reserved: rename them")
    rows: dict[str, dict[str, str | None]] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise InputError(f"{location}, row {number}: {len(line)} cells, but the header has {len(header)}")
        path = line[header.index("path")]
        row = {name: cell.strip() or None for name, cell in zip(header, line, strict=True) if name != "path"}
        if path in rows:
            raise InputError(f"{location}, row {number}: the path {path!r} occurs twice")
        rows[path] = row
    return rows
