"""Shard tagging: the tracks of a shard -> its file of tags and its mark.

On CPUs one worker reads and tags, track by track (`ShardWorker`). Where GPUs are, CPU workers read (`ShardReader`) and
a worker for each GPU tags whole shards (`ShardTagger`); the mels of a shard cross from one to the other, 2.9 MB a
track, its audio does not.
"""

import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core import shards
from mtl_core.schema import TAGS
from mtl_core.shards import Mark, Plan
from mtl_core.spent import Spent, Stopwatch
from mtl_core.tagger import Tagger
from mtl_core.tracks import FailedTrack, Row, Track, TrackReader


@dataclass(frozen=True, kw_only=True)
class ReadShard:
    """A shard whose tracks were read."""

    shard: int
    tracks: list[Track | FailedTrack]
    spent: Spent


class ShardReader:
    """Reads the tracks of shards, for a worker of another process that tags them."""

    def __init__(self, plan: Plan, make_reader: Callable[[], TrackReader]) -> None:
        self._plan, self._reader = plan, make_reader()

    def __call__(self, shard: int) -> bytes:
        """A pickled `ReadShard`."""
        before = self._reader.watch.spent()
        tracks = list(self._reader.read(shards.read(self._plan, shard)))
        spent = self._reader.watch.spent(before)
        return pickle.dumps(ReadShard(shard=shard, tracks=tracks, spent=spent), protocol=5)


class ShardTagger:
    """Tags shards that were read: all tracks of a shard in one pass of the network."""

    def __init__(self, plan: Plan, make_tagger: Callable[[], Tagger]) -> None:
        self._watch = Stopwatch()
        self._write = _Writer(plan, make_tagger(), self._watch)

    def __call__(self, pickled: bytes) -> Mark:
        before = self._watch.spent()
        read: ReadShard = pickle.loads(pickled)
        return self._write(read.shard, read.tracks, shards.MOST_TRACKS, lambda: read.spent + self._watch.spent(before))


class ShardWorker:
    """Reads and tags shards; a track at a time is held."""

    def __init__(self, plan: Plan, make_reader: Callable[[], TrackReader], make_tagger: Callable[[], Tagger]) -> None:
        self._plan, self._reader = plan, make_reader()
        self._write = _Writer(plan, make_tagger(), self._reader.watch)

    def __call__(self, shard: int) -> Mark:
        spent = partial(self._reader.watch.spent, self._reader.watch.spent())
        return self._write(shard, self._reader.read(shards.read(self._plan, shard)), 1, spent)


class _Writer:
    def __init__(self, plan: Plan, tagger: Tagger, watch: Stopwatch) -> None:
        self._plan, self._tagger, self._watch = plan, tagger, watch
        # A worker of a killed driver can live on for seconds: its files are never those of its successor's workers.
        self._own = uuid.uuid4().hex[:8]

    def __call__(
        self, shard: int, tracks: Iterable[Track | FailedTrack], at_once: int, spent: Callable[[], Spent]
    ) -> Mark:
        rows: list[Row] = []
        failed: list[FailedTrack] = []
        for result in self._tagged(iter(tracks), at_once):
            if isinstance(result, FailedTrack):
                failed.append(result)
            else:
                rows.append(result)
        output = self._plan.folder / f"tags-{shard:06}-{self._own}.parquet"
        with self._watch.timed("write"):
            if rows:
                buffer = pa.BufferOutputStream()
                pq.write_table(pa.Table.from_pylist(rows, schema=TAGS), buffer)
                output.write_bytes(memoryview(buffer.getvalue()))
        mark = Mark(
            shard=shard,
            output=output.name if rows else "",
            done=len(rows),
            failed=len(failed),
            n_segments=sum(row["n_segments"] for row in rows),
            audio_s=sum(row["duration_s"] for row in rows),
            spent=spent(),
        )
        shards.mark(self._plan, mark, [self._failure(track) for track in failed])
        return mark

    def _tagged(self, tracks: Iterator[Track | FailedTrack], at_once: int) -> Iterator[Row | FailedTrack]:
        while some := list(islice(tracks, at_once)):
            yield from (track for track in some if isinstance(track, FailedTrack))
            read = [track for track in some if isinstance(track, Track)]
            with self._watch.timed("model"):
                tagged = self._tagger.tag(read, model_id=self._plan.asked["model_id"], run_id=self._plan.run_id)
            yield from tagged

    def _failure(self, track: FailedTrack) -> Row:
        attempts = track.row["attempts"] + 1  # the plan has those of earlier nights
        return track.as_row(attempts=attempts, model_id=self._plan.asked["model_id"], run_id=self._plan.run_id)
