"""Track workers: batch classes for a user's own Ray Data pipeline. A batch of tracks in, a table out.

    ray.data.read_parquet(manifest).repartition(target_num_rows_per_block=8).map_batches(
        TagTracks, fn_constructor_kwargs={"model": "s3://music/model"}, batch_size=8, num_cpus=0.5,
        compute=ActorPoolStrategy(size=8)
    ).write_parquet(out)

A worker with its decoder holds about 0.5 GiB: `memory=2**29` of `map_batches` starts no more of them than fit.

A batch is a dict of numpy arrays, a pyarrow table or a pandas data frame. It has `uri` or `bytes` (the content of the
file), and may have `track_id` (default: the uri), `content_id` (a file that changed since then fails) and `size_bytes`;
`ExtractMels` copies `artist`, `language` and `album`. Other columns are ignored: join them by `track_id`.

A file that cannot be read does not raise: its row has `stage`, `error` and `message` (`errors.ERRORS`), which are null
in all other rows. This module imports neither Ray nor torch.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from mtl_core.audio.decoding.decoder_process import DECODER
from mtl_core.audio.front_end import FrontEnd, sampling_parameters
from mtl_core.audio.prefetch import Row
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.track_reader import FailedTrack, TrackReader
from mtl_core.dataset.mel_files import mel_rows
from mtl_core.inference.file_tagger import FileTagger, failure_columns
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.schema import FAILURES, MANIFEST, MELS, TAGS

_FAILURE_FIELDS = [FAILURES.field(name) for name in ("stage", "error", "message")]
#: One row a track: the columns of TAGS, then stage, error and message.
TAG_RESULTS = pa.schema([*TAGS, *_FAILURE_FIELDS])
#: One row a segment: the columns of MELS, then stage, error and message. A failed track has one row with a null mel.
MEL_RESULTS = pa.schema([*(field.with_nullable(True) for field in MELS), *_FAILURE_FIELDS])

TrackBatch: TypeAlias = Mapping[str, Any] | pa.Table


class TagTracks:
    """Batch of tracks -> their tags: a table of `TAG_RESULTS`, one row a track, in order; `run_id` is null.

    Args:
        model: path or s3:// URI of a model artifact.
        limits: what a track may be, and what reading it may cost.
        exit_options: how many segments of a track are decoded.
        decoder: module of the decoder process.

    Raises:
        InputError: the model is missing or damaged.
    """

    def __init__(
        self,
        model: str,
        *,
        limits: ReadLimits | None = None,
        exit_options: ExitOptions | None = None,
        decoder: str = DECODER,
    ) -> None:
        self._tagger = FileTagger(model, limits=limits, exit_options=exit_options, decoder=decoder)

    def __call__(self, batch: TrackBatch) -> pa.Table:
        """Raises ValueError where the batch has neither `uri` nor `bytes`."""
        return pa.Table.from_pylist(list(self._tagger.tag_rows(_rows(batch))), schema=TAG_RESULTS)


class ExtractMels:
    """Batch of tracks -> their log-mel segments: a table of `MEL_RESULTS`, one row a segment, tracks in order.

    Filter on `stage` before mels become numpy arrays: a null mel has no array. With the default arguments a track has
    at most 32 segments, 36 kB each: choose `batch_size` accordingly.

    Args:
        sampling, segments, segments_per_excerpt: as of `ExtractionOptions`.
        draws: random starts for each segment slot instead of the fixed grid, 1 to 100; 0 is the fixed grid.
        seed: of the draws.
        limits, decoder: as of `TagTracks`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        *,
        sampling: str = "spread",
        segments: int | None = None,
        segments_per_excerpt: int | None = None,
        draws: int = 0,
        seed: int = 0,
        limits: ReadLimits | None = None,
        decoder: str = DECODER,
    ) -> None:
        if not 0 <= draws <= 100:
            raise ValueError(f"draws must be 0 (the fixed grid) to 100, got {draws}")
        front_end = FrontEnd(**sampling_parameters(sampling, segments, segments_per_excerpt))
        self._reader = TrackReader(front_end, limits, decoder=decoder, draws=draws, seed=seed)

    def __call__(self, batch: TrackBatch) -> pa.Table:
        """Raises ValueError where the batch has neither `uri` nor `bytes`."""
        tables = [MEL_RESULTS.empty_table()]
        for track in self._reader.read(_rows(batch)):
            if isinstance(track, FailedTrack):
                tables.append(pa.Table.from_pylist([track.row | failure_columns(track)], schema=MEL_RESULTS))
            else:
                tables.append(mel_rows(track, MEL_RESULTS))
        return pa.concat_tables(tables).combine_chunks()


def _rows(batch: TrackBatch) -> list[Row]:
    """A batch's tracks as rows of a manifest, with `bytes`."""
    names = set(batch.column_names if isinstance(batch, pa.Table) else batch)  # those of a dict or a data frame
    if not names & {"uri", "bytes"}:
        raise ValueError(f"a batch needs a column 'uri' or 'bytes', got {sorted(names)}")
    columns = {name: _values(batch[name]) for name in (*MANIFEST.names, "bytes") if name in names}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        row["uri"] = row.get("uri") or ""  # without bytes it fails: an empty URI
        if row.get("track_id") is None:
            row["track_id"] = row["uri"]
    return rows


def _values(column: Any) -> list[Any]:
    """A column's values; None for a null, which is NaN in numpy and NA in pandas."""
    is_arrow = isinstance(column, pa.Array | pa.ChunkedArray)
    return (column if is_arrow else pa.array(np.asarray(column, object), from_pandas=True)).to_pylist()
