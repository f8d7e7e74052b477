"""Parquet files of mels without any audio behind them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.audio.front_end import FrontEnd
from mtl_core.dataset.mel_files import mels_schema
from mtl_core.schema import MANIFEST
from mtl_core.storage.location import Location


def write_mel_files(
    files: Iterable[Sequence[dict[str, Any]]],
    folder: Location,
    *,
    front_end: FrontEnd | None = None,
    row_group_size: int | None = None,
) -> Location:
    """Write mels as an extraction does; returns the folder.

    Args:
        files: the tracks of each file: `track_id`, `mel` (S, 187, 96), and `artist`, `language`, `album` where known.
        front_end: in the files' metadata; by default the standard one.
        row_group_size: segments of a row group.
    """
    schema = mels_schema(front_end or FrontEnd(), MANIFEST)
    for number, tracks in enumerate(files):
        n_segments = [len(track["mel"]) for track in tracks]
        segment_S = np.concatenate([np.arange(n) for n in n_segments])
        mel_STF = np.concatenate([track["mel"] for track in tracks]).astype(np.float16)
        columns = {
            "segment": pa.array(segment_S, pa.int32()),
            "start_s": pa.array(segment_S * 3.0),
            "mel": pa.FixedShapeTensorArray.from_numpy_ndarray(mel_STF),
        }
        for name in ("track_id", "artist", "language", "album"):
            values = [track.get(name) for track, n in zip(tracks, n_segments, strict=True) for _ in range(n)]
            columns[name] = pa.array(values, pa.string())
        buffer = pa.BufferOutputStream()
        table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
        pq.write_table(table, buffer, row_group_size=row_group_size)
        (folder / f"{number}.parquet").write_bytes(memoryview(buffer.getvalue()))
    return folder
