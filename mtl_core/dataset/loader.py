"""Loader: batches of the segments of one split, in an order that only the seed, the epoch and the workers decide.

Shuffling has three steps. (1) The row groups of the split (up to 1,024 segments each, neighbours in the manifest) are
put in a new random order each epoch. (2) That sequence of segments is cut into equal shares, one for each worker.
(3) Each worker draws its batches at random from a buffer; 4,096 segments come from four or more row groups, that is
100 tracks or more, so a batch mixes songs. A worker reads only the row groups of its share, two of them while it uses a
third, and holds only these and the buffer in memory: the mels may be larger than any memory.

An epoch can take a few segments of each track only, drawn anew each time: with many segments a track, more epochs of
fewer segments cost less, because the segments of a track are alike.

Legend: B batch, T frames, F bands, S segments, G row groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.mel_files import read_row_group
from mtl_core.schema import MEL_SHAPE
from mtl_core.storage.concurrency import bounded_map
from mtl_core.storage.location import Location

ROW_GROUPS_HELD = 3  # 37 MB each

#: `mel` (B, 187, 96) float16, `track` (B,) int64 (its index in the split), and the classes of each task (B,) int64. In
#: order of the files there is also `segment` (B,) int64, the segment's number in its track.
Batch = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SplitSegments:
    """Where the segments of a split are, and their classes; it holds no mels."""

    files: tuple[Location, ...]
    spans: pa.Table  # as in `MelDataset`, but `track` is the index in this split
    targets: dict[str, np.ndarray]  # task -> the class of each track of the split, int64; `MISSING` if it has none

    @property
    def segments(self) -> int:
        """The number of segments."""
        return int(pc.sum(self.spans["segments"]).as_py() or 0)

    @property
    def of_track(self) -> np.ndarray:
        """(N,) int64, the number of segments of each track."""
        n_tracks = len(next(iter(self.targets.values()), ()))
        track, segments = (self.spans[name].to_numpy() for name in ("track", "segments"))
        return np.bincount(track, segments, minlength=n_tracks).astype(np.int64)

    def epoch_segments(self, per_track: int | None = None) -> int:
        """The number of segments of an epoch that takes so many of each track; None: all."""
        return int(self._kept(per_track).sum())

    def shuffled_batches(
        self,
        size: int,
        *,
        buffer_segments: int,
        seed: int,
        epoch: int,
        per_track: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[Batch]:
        """Batches of one worker in one epoch, shuffled; the last batch may be smaller, or larger by one segment.

        A batch of one segment would have no variance for a BatchNorm; so this segment goes with those before it.

        All workers get the same number of segments. For that, up to world_size - 1 segments are dropped each epoch,
        different ones each time.

        Args:
            size: B.
            buffer_segments: number of segments that batches are drawn from, at least B.
            seed, epoch: each pair gives an order of its own, and segments of its own.
            per_track: about so many segments of each track are taken, at random; None: all.
            rank: of the worker, 0 to world_size - 1.
            world_size: number of workers.
        """
        order_G = np.random.default_rng((seed, epoch)).permutation(len(self._first_spans))
        share = self.epoch_segments(per_track) // world_size
        rng = np.random.default_rng((seed, epoch, rank + 1))
        buffer, left = _Buffer(min(max(size + 1, buffer_segments), share)), share

        def draw_batch() -> Batch:
            nonlocal left
            count = left if left == size + 1 > 2 else size
            left -= count
            return self._batch(*buffer.take(count, rng))

        draw = _Draw(self._kept(per_track), (seed, epoch))
        for mel_STF, track_S, _ in self._read(order_G, rank * share, (rank + 1) * share, draw):
            start = 0
            while start < len(mel_STF):
                start += buffer.fill(mel_STF[start:], track_S[start:])
                if buffer.filled == buffer.size:
                    yield draw_batch()
        while buffer.filled:
            yield draw_batch()

    def ordered_batches(self, size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Batches of one worker in the order of the files; no segment is dropped. Arguments as `shuffled_batches`."""
        first, end = (self.segments * i // world_size for i in (rank, rank + 1))
        rest = (np.empty((0, *MEL_SHAPE), np.float16), np.empty(0, np.int64), np.empty(0, np.int64))
        all_segments = _Draw(self._kept(None), (0, 0))
        for read in self._read(np.arange(len(self._first_spans)), first, end, all_segments):
            mel_STF, track_S, segment_S = (np.concatenate((rest[i], read[i])) for i in range(3))
            n_batched = len(track_S) // size * size
            for start in range(0, n_batched, size):
                rows = slice(start, start + size)
                yield self._batch(mel_STF[rows], track_S[rows]) | {"segment": segment_S[rows]}
            rest = (mel_STF[n_batched:], track_S[n_batched:], segment_S[n_batched:])
        if len(rest[1]):
            yield self._batch(*rest[:2]) | {"segment": rest[2]}

    def _batch(self, mel_BTF: np.ndarray, track_B: np.ndarray) -> Batch:
        return {"mel": mel_BTF, "track": track_B, **{task: classes[track_B] for task, classes in self.targets.items()}}

    @cached_property
    def _first_spans(self) -> np.ndarray:
        """(G,) the index of the first span of each row group that has segments of the split."""
        file, row_group = (self.spans[name].to_numpy() for name in ("file", "row_group"))
        return np.flatnonzero((np.diff(file, prepend=-1) != 0) | (np.diff(row_group, prepend=-1) != 0))

    @cached_property
    def _first_segments(self) -> np.ndarray:
        """The number in its track of each span's first segment; it is above 0 where a track is in two row groups."""
        track, segments = (self.spans[name].to_numpy() for name in ("track", "segments"))
        order = np.argsort(track, kind="stable")
        before = np.cumsum(segments[order]) - segments[order]
        is_first = np.diff(track[order], prepend=-1) != 0
        first_segments = np.empty_like(before)
        first_segments[order] = before - np.repeat(before[is_first], np.diff([*np.flatnonzero(is_first), len(order)]))
        return first_segments

    def _kept(self, per_track: int | None) -> np.ndarray:
        """How many segments of each span an epoch takes; those of a track in two row groups are shared out."""
        segments = self.spans["segments"].to_numpy()
        if per_track is None:
            return segments
        track = self.spans["track"].to_numpy()
        of_track = np.bincount(track, segments).astype(np.int64)[track]
        return np.minimum(segments, -(-per_track * segments // of_track))

    def _read(
        self, order_G: np.ndarray, first: int, end: int, draw: "_Draw"
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Drawn segments `first` to `end` of the row groups in this order.

        Mels (S, 187, 96) float16, tracks (S,), and the numbers of the segments in their tracks (S,).
        """
        spans_G = self._first_spans
        count_G = np.add.reduceat(draw.kept, spans_G) if len(spans_G) else spans_G
        ends_G = np.cumsum(count_G[order_G])
        starts_G = ends_G - count_G[order_G]
        return bounded_map(
            lambda i: self._read_row_group(order_G[i], max(0, first - starts_G[i]), end - starts_G[i], draw),
            np.flatnonzero((starts_G < end) & (ends_G > first)),
            ROW_GROUPS_HELD,
        )

    def _read_row_group(
        self, index: int, first: int, end: int, draw: "_Draw"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Drawn segments `first` to `end` of the split in one row group, as `_read`."""
        spans_G = self._first_spans
        begin = int(spans_G[index])
        spans = self.spans[begin : spans_G[index + 1] if index + 1 < len(spans_G) else None]
        row, segments, track = (spans[name].to_numpy() for name in ("row", "segments", "track"))
        chosen = [draw.rows(begin + i, n) for i, n in enumerate(segments)]
        row_S = np.concatenate([start + rows for start, rows in zip(row, chosen, strict=True)])[first:end]
        track_S = np.repeat(track, [len(rows) for rows in chosen])[first:end]
        first_segment = self._first_segments[begin : begin + len(spans)]
        segment_S = np.concatenate([at + rows for at, rows in zip(first_segment, chosen, strict=True)])[first:end]
        mel_STF = read_row_group(self.files[spans["file"][0].as_py()], spans["row_group"][0].as_py())
        return mel_STF[row_S], track_S, segment_S


@dataclass(frozen=True)
class _Draw:
    """Which segments of each span are taken."""

    kept: np.ndarray  # how many of each span
    seed: tuple[int, int]

    def rows(self, span: int, segments: int) -> np.ndarray:
        """The chosen ones among the segments of a span, ascending."""
        kept = self.kept[span]
        if kept == segments:
            return np.arange(segments)
        return np.sort(np.random.default_rng((*self.seed, 0, span)).choice(segments, kept, replace=False))


class _Buffer:
    """Holds segments, and draws from them at random."""

    def __init__(self, size: int) -> None:
        self._mel_STF = np.empty((size, *MEL_SHAPE), np.float16)
        self._track_S = np.empty(size, np.int64)
        self.size, self.filled = size, 0

    def fill(self, mel_STF: np.ndarray, track_S: np.ndarray) -> int:
        """Add segments from the start of the arrays until the buffer is full; returns their number."""
        free = slice(self.filled, self.filled + len(mel_STF))
        count = len(self._track_S[free])
        self._mel_STF[free], self._track_S[free] = mel_STF[:count], track_S[:count]
        self.filled += count
        return count

    def take(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Remove and return `count` random segments, or all if there are fewer."""
        count = min(count, self.filled)
        taken = rng.choice(self.filled, count, replace=False)
        mel_STF, track_S = self._mel_STF[taken], self._track_S[taken]
        self.filled -= count
        # Move the remaining segments behind the new end into the gaps before it.
        behind = np.setdiff1d(np.arange(self.filled, self.filled + count), taken)
        gaps = taken[taken < self.filled]
        self._mel_STF[gaps], self._track_S[gaps] = self._mel_STF[behind], self._track_S[behind]
        return mel_STF, track_S


def n_batches(n_segments: int, size: int) -> int:
    """The number of batches that `shuffled_batches` makes of a worker's segments of an epoch."""
    return max(1, -(-(n_segments - 1) // size)) if size > 1 else n_segments


def select_tracks(source: MelDataset, track_ids: pa.ChunkedArray, targets: dict[str, np.ndarray]) -> SplitSegments:
    """Select the segments of N tracks.

    Args:
        source: where the tracks are.
        track_ids: (N,) sorted; all of them are in `source`.
        targets: task -> their classes (N,) int64.
    """
    index_in_split = pc.index_in(source.tracks["track_id"], value_set=track_ids.combine_chunks()).cast(pa.int64())
    track = index_in_split.take(source.spans["track"])
    spans = source.spans.drop_columns("track").append_column("track", track)
    return SplitSegments(files=source.files, spans=spans.filter(pc.is_valid(track)).combine_chunks(), targets=targets)
