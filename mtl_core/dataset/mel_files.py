"""Mel files: Parquet files of mels with one row a segment, as `schema.MELS` describes it.

A whole track is in one file, its segments in order. Every file carries the front end that made it in its metadata.
While an extraction runs, its plan is in `_runs/RUN_ID/`, and the mels must not be read.

Legend: S segments, T frames (187), F bands (96).
"""

import json
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.audio.filter_bank import pack
from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.track_reader import Track
from mtl_core.errors import InputError, one_line
from mtl_core.schema import FILTER_BANK, FRONT_END, FRONT_END_HASH, MANIFEST, MEL_SHAPE, MELS
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes

RUNS_FOLDER = "_runs"
SEGMENTS_PER_ROW_GROUP = 1024  # 37 MB before compression
_REQUIRED = ("track_id", "segment", "start_s", "artist", "language", "mel")


@dataclass(frozen=True)
class MelFile:
    """What a mel file holds, without the mels."""

    front_end: FrontEnd
    #: One row a track: `track_id`, `segments` int64 (their number), `artist`, `language`, `album`, the carried columns.
    tracks: pa.Table
    #: One row a run of consecutive rows of one track in one row group: `track_id`, and as int64 `row_group`, `row` (the
    #: first one, counted in the row group) and `segments` (their number).
    spans: pa.Table


def open_mel_file(file: Location) -> MelFile:
    """Read the footer and the label columns of a mel file, but no mel.

    Raises:
        InputError: the file is not Parquet, lacks a column or its front end, or has a row without track_id.
    """
    try:
        with file.filesystem.open(file.path, "rb") as handle:
            parquet = pq.ParquetFile(handle)
            schema = parquet.schema_arrow
            metadata = schema.metadata or {}
            missing = [name for name in _REQUIRED if name not in schema.names]
            if missing or FRONT_END not in metadata or FRONT_END_HASH not in metadata:
                problem = f"no column {missing[0]!r}" if missing else "no front end in its metadata"
                raise InputError(f"{file} holds no mels: {problem}")
            mel = schema.field("mel").type
            if getattr(mel, "shape", None) != list(MEL_SHAPE) or mel.value_type != pa.float16():
                raise InputError(f"{file}: its mels are {mel}, allowed is float16 of {MEL_SHAPE}")
            front_end = FrontEnd.from_dict(json.loads(metadata[FRONT_END]), metadata.get(FILTER_BANK))
            own = ("track_id", "segment", "segments", "start_s", "mel")  # `segments` is made below
            carried = [name for name in schema.names if name not in own]
            table = parquet.read(columns=["track_id", "segment", *carried])
            track_ids = table["track_id"].cast(pa.string())
            if track_ids.null_count:
                raise InputError(f"{file}: {track_ids.null_count:,} of its rows have no track_id")
            table = table.set_column(0, "track_id", track_ids)
            rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    except (pa.ArrowInvalid, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} holds no mels: {one_line(error)}") from None
    grouped = table.group_by("track_id", use_threads=False).aggregate(
        [("segment", "count"), *((name, "first") for name in carried)]
    )
    counted = grouped.select(["track_id", "segment_count", *(f"{name}_first" for name in carried)])
    return MelFile(
        front_end,
        counted.rename_columns(["track_id", "segments", *carried]),
        _spans(table["track_id"], np.array(rows, np.int64)),
    )


def _spans(track_ids: pa.ChunkedArray, rows_of_group: np.ndarray) -> pa.Table:
    """`MelFile.spans` of the track_ids of all rows of a file, whose G row groups have `rows_of_group` (G,) rows."""
    code = track_ids.combine_chunks().dictionary_encode().indices.to_numpy()
    ends = np.cumsum(rows_of_group)
    first = np.union1d(np.flatnonzero(np.diff(code, prepend=-1)), (ends - rows_of_group)[rows_of_group > 0])
    group = np.searchsorted(ends, first, side="right")
    return pa.table(
        {
            "track_id": track_ids.take(pa.array(first)),
            "row_group": group,
            "row": first - (ends - rows_of_group)[group],
            "segments": np.diff(first, append=len(code)),
        }
    )


def read_row_group(file: Location, number: int) -> np.ndarray:
    """The mels (S, 187, 96) float16 of a row group, in the order of its rows."""
    # By default s3fs would read 50 MiB ahead, into the next row group, which is not needed.
    with file.filesystem.open(file.path, "rb", **({"cache_type": "none"} if file.on_s3 else {})) as handle:
        return _read_mels(pq.ParquetFile(handle), number)


def _read_mels(parquet: pq.ParquetFile, row_group: int) -> np.ndarray:
    mel = parquet.read_row_group(row_group, columns=["mel"], use_threads=False)["mel"]
    return mel.combine_chunks().to_numpy_ndarray()


def iter_segments(file: Location, track_ids: Set[str]) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """The segments of the given tracks in a file, one row group at a time.

    Yields:
        track_ids of the segments, numbers of the segments (S,) int32, and mels (S, 187, 96) float32.
    """
    with file.filesystem.open(file.path, "rb") as handle:
        parquet = pq.ParquetFile(handle)
        for group in range(parquet.num_row_groups):
            rows = parquet.read_row_group(group, columns=["track_id", "segment"])
            is_wanted = np.array([track_id in track_ids for track_id in rows["track_id"].to_pylist()], bool)
            if is_wanted.any():
                segments = rows.filter(pa.array(is_wanted))
                yield (
                    segments["track_id"].to_pylist(),
                    segments["segment"].to_numpy(),
                    _read_mels(parquet, group)[is_wanted].astype(np.float32),
                )


def mels_schema(front_end: FrontEnd, manifest: pa.Schema) -> pa.Schema:
    """`MELS` with the carried columns of a manifest before `mel`, and the front end in the metadata.

    Nested columns are left out, and a dictionary becomes plain values.
    """
    own = (*MANIFEST.names, *MELS.names)
    carried = [field for field in manifest if field.name not in own and not pa.types.is_nested(field.type)]
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in carried
    ]
    fields = [*(field for field in MELS if field.name != "mel"), *plain, MELS.field("mel")]
    metadata = {
        FRONT_END: front_end.to_json(),
        FRONT_END_HASH: front_end.hash(),
        FILTER_BANK: pack(front_end.filter_bank),
    }
    return pa.schema(fields, metadata)


def mel_rows(track: Track, schema: pa.Schema) -> pa.Table:
    """A track's segments, one row each, in the columns of `schema`; the log-mels are cast to float16."""
    n_segments = len(track.segments.start_s)
    columns: dict[str, Any] = {name: [value] * n_segments for name, value in track.row.items()}
    columns |= {"segment": range(n_segments), "start_s": track.segments.start_s}
    mel = pa.FixedShapeTensorArray.from_numpy_ndarray(track.segments.mel_STF.astype(np.float16))
    arrays = [
        mel if field.name == "mel" else pa.array(columns.get(field.name, [None] * n_segments), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def encode_mels(tracks: Iterable[Track], schema: pa.Schema) -> memoryview:
    """Encode the `mel_rows` of tracks as a Parquet file."""
    tables = [mel_rows(track, schema) for track in tracks]
    # Byte stream split without a dictionary makes reading a mel three times as fast and the file 12 % smaller.
    return to_bytes(
        pa.concat_tables([schema.empty_table(), *tables]).combine_chunks(),
        compression="zstd",
        row_group_size=SEGMENTS_PER_ROW_GROUP,
        use_dictionary=[name for name in schema.names if pa.types.is_string(schema.field(name).type)],
        use_byte_stream_split=["mel.list.element"],
    )
