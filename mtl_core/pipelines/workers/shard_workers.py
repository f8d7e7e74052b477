"""Shard tagging: the tracks of a shard -> its file of tags and its mark.

On CPUs one worker reads and tags, track by track (`ShardWorker`). Where GPUs are, CPU workers read (`ShardReader`) and
a worker for each GPU tags whole shards (`ShardTagger`); the mels of a shard cross from one to the other, 2.9 MB a
track, its audio does not.
"""

import pickle
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import pyarrow as pa

from mtl_core.audio.track_reader import FailedTrack, Row, Track, TrackReader
from mtl_core.inference.tagger import Tagger
from mtl_core.schema import TAGS
from mtl_core.storage import work_plan
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.work_plan import ShardResult, WorkPlan
from mtl_core.timing import ZERO, StageTimer, StageTimes


@dataclass(frozen=True, kw_only=True)
class ReadShard:
    """A shard whose tracks were read."""

    shard: int
    tracks: list[Track | FailedTrack]
    spent: StageTimes


class ShardReader:
    """Reads the tracks of shards, for a worker of another process that tags them; called by several threads."""

    def __init__(self, plan: WorkPlan, make_reader: Callable[[], TrackReader]) -> None:
        self._plan, self._reader = plan, make_reader()

    def __call__(self, shard: int) -> bytes:
        """A pickled `ReadShard`."""
        tracks = self._reader.serve_in_order(partial(work_plan.read_shard, self._plan, shard), list)
        return pickle.dumps(ReadShard(shard=shard, tracks=tracks, spent=self._reader.timer.delta()), protocol=5)


class ShardTagger:
    """Tags shards that were read: all tracks of a shard in one pass of the network."""

    def __init__(self, plan: WorkPlan, make_tagger: Callable[[], Tagger]) -> None:
        self._watch = StageTimer()
        self._write = _Writer(plan, make_tagger(), self._watch)

    def __call__(self, pickled: bytes) -> ShardResult:
        read: ReadShard = pickle.loads(pickled)
        results = self._write.tagged(read.tracks, work_plan.MAX_TRACKS_PER_SHARD)
        return self._write(read.shard, results, read.spent)


class ShardWorker:
    """Reads and tags shards, a track at a time; called by several threads, it fetches for one what another tags."""

    def __init__(
        self, plan: WorkPlan, make_reader: Callable[[], TrackReader], make_tagger: Callable[[], Tagger]
    ) -> None:
        self._plan, self._reader = plan, make_reader()
        self._write = _Writer(plan, make_tagger(), self._reader.timer)

    def __call__(self, shard: int) -> ShardResult:
        tag = partial(self._write.tagged, at_once=1)
        return self._write(shard, self._reader.serve_in_order(partial(work_plan.read_shard, self._plan, shard), tag))


class _Writer:
    def __init__(self, plan: WorkPlan, tagger: Tagger, watch: StageTimer) -> None:
        self._plan, self._tagger, self._watch = plan, tagger, watch
        # A worker of a killed driver can live on for seconds: its files are never those of its successor's workers.
        self._own = uuid.uuid4().hex[:8]
        watch.delta()  # starting is no shard's work

    def tagged(self, tracks: Iterable[Track | FailedTrack], at_once: int) -> list[Row | FailedTrack]:
        """Their rows of tags, and those that failed."""
        results: list[Row | FailedTrack] = []
        tracks = iter(tracks)
        while some := list(islice(tracks, at_once)):
            results += [track for track in some if isinstance(track, FailedTrack)]
            read = [track for track in some if isinstance(track, Track)]
            with self._watch.timed("model"):
                results += self._tagger.tag(read, model_id=self._plan.parameters["model_id"], run_id=self._plan.run_id)
        return results

    def __call__(self, shard: int, results: list[Row | FailedTrack], spent_before: StageTimes = ZERO) -> ShardResult:
        rows = [result for result in results if not isinstance(result, FailedTrack)]
        failed = [result for result in results if isinstance(result, FailedTrack)]
        output = self._plan.folder / f"tags-{shard:06}-{self._own}.parquet"
        with self._watch.timed("write"):
            if rows:
                output.write_bytes(to_bytes(pa.Table.from_pylist(rows, schema=TAGS)))
        mark = ShardResult(
            shard=shard,
            output=output.name if rows else "",
            done=len(rows),
            failed=len(failed),
            n_segments=sum(row["n_segments"] for row in rows),
            audio_s=sum(row["duration_s"] for row in rows),
            spent=spent_before + self._watch.delta(),
        )
        work_plan.complete_shard(self._plan, mark, [self._failure(track) for track in failed])
        return mark

    def _failure(self, track: FailedTrack) -> Row:
        attempts = track.row["attempts"] + 1  # the plan has those of earlier nights
        return track.as_row(attempts=attempts, model_id=self._plan.parameters["model_id"], run_id=self._plan.run_id)
