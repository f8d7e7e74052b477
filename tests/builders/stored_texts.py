"""Stored texts: everything that files under a folder say, to show that an id is nowhere.

Every file is decoded. Of Parquet files (data, checkpoints, plans, results): every value of every column, the names and
the statistics of the columns, the metadata of the footer. Of JSON (log entries, plans, records): every key and text,
also JSON inside a text. The raw bytes and the name of each file are searched, too.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mtl_core.storage.location import Location

#: First part of a file's path that fits -> what the file is.
KINDS = {
    r"(tags|failures)/_delta_log/.*checkpoint.*": "checkpoint",
    r"(tags|failures)/_delta_log/.*": "log entry",
    r"(tags|failures)/.*": "data file",
    r"_run/[^/]*/plan.*": "plan",
    r"_run/.*": "result",
    r"runs/.*": "record",
}


def places_of(folder: Location, pattern: str) -> dict[str, set[str]]:
    """What fits a regular expression under a folder: place -> texts. A place is a kind of file and a part of it."""
    expression, places = re.compile(pattern), defaultdict[str, set[str]](set)
    for path, _ in folder.walk():
        kind = next((kind for fits, kind in KINDS.items() if re.fullmatch(fits, path)), "other file")
        data = (folder / path).read_bytes()
        for part, text in [*_texts(path, data), ("bytes", data.decode("latin-1")), ("name", path)]:
            if found := set(expression.findall(text)):
                places[f"{kind}: {part}"] |= found
    return dict(places)


def _texts(path: str, data: bytes) -> Iterator[tuple[str, str]]:
    if data[:4] == b"PAR1":
        yield from _parquet_texts(pq.ParquetFile(pa.BufferReader(data)))
    elif path.endswith(".json") or path.endswith("_last_checkpoint"):
        for line in [data.decode()] if data.count(b"\n") > 1 and data[:2] == b"{\n" else data.decode().splitlines():
            yield from (("value", text) for text in _json_texts(json.loads(line)))


def _parquet_texts(file: pq.ParquetFile) -> Iterator[tuple[str, str]]:
    metadata = file.metadata
    for key, value in {**(metadata.metadata or {}), **(file.schema_arrow.metadata or {})}.items():
        yield "footer", f"{key.decode('latin-1')} {value.decode('latin-1')}"
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            yield "footer", column.path_in_schema
            if column.statistics is not None and column.statistics.has_min_max:
                yield "footer", f"{column.statistics.min} {column.statistics.max}"
        for values in file.read_row_group(group).columns:
            for flat in _flat(values.combine_chunks()):
                if pa.types.is_floating(flat.type):
                    continue  # it spells no id, and a million embeddings have a hundred million of them
                for text in pc.unique(flat).drop_null().to_pylist():
                    yield "column", str(text)
                    if isinstance(text, str) and text.startswith("{"):
                        yield from (("column", inner) for inner in _json_texts(json.loads(text)))


def _flat(values: pa.Array) -> Iterator[pa.Array]:
    """The arrays without nesting that an array is made of."""
    if isinstance(values, pa.ChunkedArray):
        for chunk in values.chunks:
            yield from _flat(chunk)
    elif isinstance(values, pa.StructArray):
        for part in values.flatten():
            yield from _flat(part)
    elif isinstance(values, pa.MapArray):
        yield from _flat(values.keys)
        yield from _flat(values.items)
    elif pa.types.is_nested(values.type):
        yield from _flat(values.flatten())
    else:
        yield values


def _json_texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _json_texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _json_texts(part)
    elif isinstance(value, str):
        yield value
        if value.startswith(("{", "[")):
            yield from _json_texts(json.loads(value))
