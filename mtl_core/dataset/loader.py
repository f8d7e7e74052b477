"""Batches: the segments of a part of the mels, in an order that seed, epoch and workers alone decide.

Shuffling is in three steps. The part's row groups (up to 1,024 segments, neighbours in the manifest) are put in an
order drawn anew each epoch; that sequence of segments is cut into one equal share a worker; and each worker draws its
batches at random out of a buffer (4,096 segments are four or more row groups, of 100 tracks or more), so that a batch
mixes songs. A worker reads the row groups of its share alone, two while it uses one, and holds those and the buffer:
the mels may be larger than any memory.

Legend: B batch, T frames, F bands, S segments.
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

ROW_GROUPS_HELD = 3  # of 37 MB

#: `mel` (B, 187, 96) float16, `track` (B,) int64 (its place in the part), and a task's classes (B,) int64.
Batch = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SplitSegments:
    """Where a part's segments lie, and their classes; no mel is held.

    Args:
        files: of the mels.
        spans: as in `Mels`, `track` being the place in this part.
        targets: task -> the class of each track of the part, int64, `MISSING` where it has none.
    """

    files: tuple[Location, ...]
    spans: pa.Table
    targets: dict[str, np.ndarray]

    @property
    def segments(self) -> int:
        return int(pc.sum(self.spans["segments"]).as_py() or 0)

    def shuffled_batches(
        self, size: int, *, buffer_segments: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """A worker's share of an epoch; every worker has as many segments, the last batch what is left.

        Up to world_size - 1 segments, at the end of the epoch's order, are nobody's: others each time.

        Args:
            size: B.
            buffer_segments: that the batches are drawn from; at least B.
            rank: of the worker, 0 to world_size - 1.
        """
        groups = np.random.default_rng((seed, epoch)).permutation(len(self._groups[0]))
        share = self.segments // world_size
        draw = np.random.default_rng((seed, epoch, rank + 1))
        buffer = _Buffer(min(max(size, buffer_segments), share))
        for mel_STF, track_S in self._read(groups, rank * share, (rank + 1) * share):
            start = 0
            while start < len(mel_STF):
                start += buffer.fill(mel_STF[start:], track_S[start:])
                if buffer.is_full:
                    yield self._batch(*buffer.take(size, draw))
        while buffer.filled:
            yield self._batch(*buffer.take(size, draw))

    def ordered_batches(self, size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """A worker's share in the files' order; every segment is some worker's."""
        first, end = (self.segments * i // world_size for i in (rank, rank + 1))
        rest_STF, rest_S = np.empty((0, *MEL_SHAPE), np.float16), np.empty(0, np.int64)
        for mel_STF, track_S in self._read(np.arange(len(self._groups[0])), first, end):
            mel_STF, track_S = np.concatenate((rest_STF, mel_STF)), np.concatenate((rest_S, track_S))
            whole = len(track_S) // size * size
            for start in range(0, whole, size):
                yield self._batch(mel_STF[start : start + size], track_S[start : start + size])
            rest_STF, rest_S = mel_STF[whole:], track_S[whole:]
        if len(rest_S):
            yield self._batch(rest_STF, rest_S)

    def _batch(self, mel_BTF: np.ndarray, track_B: np.ndarray) -> Batch:
        return {"mel": mel_BTF, "track": track_B, **{task: of[track_B] for task, of in self.targets.items()}}

    @cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row group that holds something of the part: its first stretch, and its segments in the part."""
        file, group, segments = (self.spans[name].to_numpy() for name in ("file", "row_group", "segments"))
        begins = np.flatnonzero((np.diff(file, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
        return begins, np.add.reduceat(segments, begins) if len(begins) else begins

    def _read(self, order_G: np.ndarray, first: int, end: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Segments `first` to `end` of the row groups in this order: mels (S, 187, 96) float16 and tracks (S,)."""
        ends_G = np.cumsum(self._groups[1][order_G])
        begins_G = ends_G - self._groups[1][order_G]
        wanted = np.flatnonzero((begins_G < end) & (ends_G > first))
        return bounded_map(
            lambda i: self._of_group(order_G[i], max(0, first - begins_G[i]), end - begins_G[i]),
            wanted,
            ROW_GROUPS_HELD,
        )

    def _of_group(self, place: int, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        begins, _ = self._groups
        here = self.spans[begins[place] : begins[place + 1] if place + 1 < len(begins) else None]
        row, segments, track = (here[name].to_numpy() for name in ("row", "segments", "track"))
        within = np.arange(segments.sum()) - np.repeat(np.cumsum(segments) - segments, segments)
        rows = (np.repeat(row, segments) + within)[first:end]
        mel_STF = read_row_group(self.files[here["file"][0].as_py()], here["row_group"][0].as_py())
        return mel_STF[rows], np.repeat(track, segments)[first:end]


class _Buffer:
    """Segments to draw from at random."""

    def __init__(self, segments: int) -> None:
        self._mel_STF = np.empty((segments, *MEL_SHAPE), np.float16)
        self._track_S = np.empty(segments, np.int64)
        self.filled = 0

    @property
    def is_full(self) -> bool:
        return self.filled == len(self._track_S)

    def fill(self, mel_STF: np.ndarray, track_S: np.ndarray) -> int:
        """Put in the first ones, as many as there is room for; returns their number."""
        places = slice(self.filled, self.filled + len(mel_STF))
        count = len(self._track_S[places])
        self._mel_STF[places], self._track_S[places] = mel_STF[:count], track_S[:count]
        self.filled += count
        return count

    def take(self, count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Take out so many, or all where there are fewer."""
        count = min(count, self.filled)
        taken = draw.choice(self.filled, count, replace=False)
        drawn = self._mel_STF[taken], self._track_S[taken]
        self.filled -= count
        # What lies behind the new end, and was not drawn, goes where something before it was.
        behind = np.setdiff1d(np.arange(self.filled, self.filled + count), taken)
        holes = taken[taken < self.filled]
        self._mel_STF[holes], self._track_S[holes] = self._mel_STF[behind], self._track_S[behind]
        return drawn


def select_tracks(source: MelDataset, track_ids: pa.ChunkedArray, targets: dict[str, np.ndarray]) -> SplitSegments:
    """The part of these tracks.

    Args:
        track_ids: sorted, all of them in `source`.
        targets: task -> their classes (N,) int64.
    """
    here = pc.index_in(source.tracks["track_id"], value_set=track_ids.combine_chunks()).cast(pa.int64())
    track = here.take(source.spans["track"])
    spans = source.spans.drop_columns("track").append_column("track", track)
    return SplitSegments(files=source.files, spans=spans.filter(pc.is_valid(track)).combine_chunks(), targets=targets)
