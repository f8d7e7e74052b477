"""Shard workers: the classes that Ray Data runs on CPU workers.

Each call takes one shard of a work plan. Only shard numbers go in and only counts come out (`ShardCounts`); the workers
do all I/O themselves, so Ray needs no CPUs for read or write tasks and actors may occupy every CPU. Ray Data calls a
worker from several threads: it downloads the tracks of one shard while it works on another.
"""

import json
import pickle
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.track_reader import FailedTrack, Row, Track, TrackReader, read_each
from mtl_core.dataset import mel_files
from mtl_core.dataset.vocabulary import TASKS
from mtl_core.errors import RunError
from mtl_core.inference.openvino_engine import CpuModel
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.embedding_tagger import EmbeddingTagger
from mtl_core.inference.tagging.tagger import Tagger
from mtl_core.schema import TAGS
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.run_id import days_between
from mtl_core.storage.work_plan import ShardResult, WorkPlan
from mtl_core.tables.rewriting import read_rows
from mtl_core.timing import ZERO, StageTimer, StageTimes

ShardBatch = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How workers read tracks: the arguments of `TrackReader`, which has a process and cannot be sent to a worker."""

    limits: ReadLimits
    decoder: str
    growth_bytes: int
    draws: int = 0
    seed: int = 0

    def reader(self, front_end: FrontEnd, reads_first: int | None = None) -> TrackReader:
        """A reader of tracks, with a decoder process of its own."""
        return TrackReader(
            front_end,
            self.limits,
            decoder=self.decoder,
            growth_bytes=self.growth_bytes,
            draws=self.draws,
            seed=self.seed,
            reads_first=reads_first,
        )


class ExtractShard:
    """Writes the mels of a shard's tracks to one file in `out`; `schema` is that of `mel_files.mels_schema`."""

    def __init__(
        self, plan: WorkPlan, out: Location, front_end: FrontEnd, options: ReadOptions, schema: pa.Schema
    ) -> None:
        self._plan, self._out, self._schema = plan, out, schema
        self._reader = options.reader(front_end)
        self._reader.timer.delta()  # starting is not part of any shard's times

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        (shard,) = batch["item"].tolist()
        results = self._reader.serve_in_order(
            partial(work_plan.read_shard, self._plan, shard), lambda tracks: list(read_each(tracks))
        )
        tracks = [result for result in results if isinstance(result, Track)]
        output = self._out / f"mels-{self._plan.run_id}-{shard:06}.parquet"
        with self._reader.timer.timed("write"):
            if tracks:
                output.write_bytes(mel_files.encode_mels(tracks, self._schema))
        result = ShardResult(
            shard=shard,
            output=output.name if tracks else "",
            done=len(tracks),
            failed=len(results) - len(tracks),
            n_segments=sum(len(track.segments.start_s) for track in tracks),
            audio_s=sum(track.duration_s for track in tracks),
            spent=self._reader.timer.delta(),
        )
        return finish_shard(self._plan, result, results)


class ReadAndTagShard:
    """Reads the tracks of a shard and tags each as it is read; writes their tags to one file."""

    def __init__(self, plan: WorkPlan, model: CpuModel, options: ReadOptions, exit_options: ExitOptions) -> None:
        tagger = model.tagger(exit_options)
        self._plan, self._reader = plan, options.reader(model.front_end, tagger.reads_first)
        self._tagged = partial(
            tagger.read_and_tag,
            timer=self._reader.timer,
            model_id=plan.parameters["model_id"],
            run_id=plan.run_id,
        )
        self._writer = TagWriter(plan, tagger, self._reader.timer)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        (shard,) = batch["item"].tolist()
        results = self._reader.serve_in_order(
            partial(work_plan.read_shard, self._plan, shard), lambda tracks: list(self._tagged(tracks))
        )
        return self._writer.write(shard, results)


@dataclass(frozen=True, kw_only=True)
class ShardTracks:
    """The tracks of a shard, read but not tagged yet, and what reading them cost."""

    shard: int
    tracks: list[Track | FailedTrack]
    times: StageTimes


class ReadShard:
    """Reads a shard's tracks for `gpu_workers.TagShard`. Segments pass through Ray's object store, 72 kB each.

    Nothing flows back from the GPU, so a fixed number of `segments` of each track is read; None: all.
    """

    def __init__(self, plan: WorkPlan, front_end: FrontEnd, options: ReadOptions, segments: int | None) -> None:
        self._plan, self._segments, self._reader = plan, segments, options.reader(front_end, segments)
        self._reader.timer.delta()

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        (shard,) = batch["item"].tolist()
        tracks = self._reader.serve_in_order(
            partial(work_plan.read_shard, self._plan, shard), lambda tracks: list(read_each(tracks, self._segments))
        )
        read = ShardTracks(shard=shard, tracks=tracks, times=self._reader.timer.delta())
        return {"item": np.array([pickle.dumps(read, protocol=5)], object)}


class RetagShard:
    """Tags the tracks of a shard from the embeddings in the table of tags, and reads no audio.

    The plan names the files and rows of the table. A track whose tags the model would not take from the same segments
    is refused. With `only_changed`, a track whose labels stay the same is left as it is.
    """

    def __init__(self, plan: WorkPlan, table: Location, tagger: EmbeddingTagger, *, only_changed: bool) -> None:
        self._plan, self._table, self._tagger, self._only_changed = plan, table, tagger, only_changed
        self._suffix = uuid.uuid4().hex[:8]
        self._timer = StageTimer()

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        (shard,) = batch["item"].tolist()
        planned = work_plan.read_shard_table(self._plan, shard)
        tagged, refused = [TAGS.empty_table()], [planned.slice(0, 0)]
        for rows, of_rows in self._rows(planned):
            with self._timer.timed("model"):
                tags, taken_N = self._tagger.tag(
                    rows, model_id=self._plan.parameters["model_id"], run_id=self._plan.run_id
                )
            refused.append(of_rows.filter(pa.array(~taken_N)))
            if self._only_changed:
                taken_N &= np.any([_differ(rows[task], tags[task]) for task in TASKS], axis=0)
            tagged.append(tags.filter(pa.array(taken_N)))
        tags, to_read = pa.concat_tables(tagged), pa.concat_tables(refused)
        output = self._plan.folder / f"tags-{shard:06}-{self._suffix}.parquet"
        others = self._plan.folder / f"refused-{shard:06}-{self._suffix}.parquet"
        with self._timer.timed("write"):
            for file, table in ((output, tags), (others, to_read)):
                if len(table):
                    file.write_bytes(to_bytes(table))
        result = ShardResult(
            shard=shard,
            output=output.name if len(tags) else "",
            done=len(tags),
            failed=0,
            left=len(planned) - len(tags),
            refused=others.name if len(to_read) else "",
            n_segments=0,
            audio_s=0.0,
            spent=self._timer.delta(),
        )
        return finish_shard(self._plan, result, [], _count_unknown(tags))

    def _rows(self, planned: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Pairs of the table's rows, with the URIs of the plan, and their planned tracks, one row group at a time."""
        files, rows_N = planned["file"].to_numpy(), planned["row"].to_numpy()
        first = 0
        for path in dict.fromkeys(files):
            of_file = rows_N[files == path]
            for rows in read_rows(self._table / path, of_file, TAGS):
                of_rows = planned.slice(first, len(rows))
                if rows["track_id"] != of_rows["track_id"]:
                    raise RunError(f"{self._table / path}: its rows are not those that were planned")
                yield rows.set_column(rows.column_names.index("uri"), TAGS.field("uri"), of_rows["uri"]), of_rows
                first += len(rows)
        if first != len(planned):
            raise RunError(f"{self._table}: {first:,} of {len(planned):,} planned rows were found")


def _differ(before: pa.ChunkedArray, after: pa.ChunkedArray) -> np.ndarray:
    """(N,) whether two values differ; null equals null."""
    equal = pc.or_kleene(pc.equal(before, after), pc.and_(pc.is_null(before), pc.is_null(after)))
    return ~equal.fill_null(False).to_numpy()


class TagWriter:
    """Tags tracks, and writes the tags of a shard. `timer` takes the stages "model" and "write"."""

    def __init__(self, plan: WorkPlan, tagger: Tagger, timer: StageTimer) -> None:
        self._plan, self._tagger, self._timer = plan, tagger, timer
        # A worker of a killed driver can live on for seconds. Its files never have the names of its successor's.
        self._suffix = uuid.uuid4().hex[:8]
        timer.delta()  # starting is not part of any shard's times

    def tag(self, tracks: Sequence[Track | FailedTrack]) -> list[Row | FailedTrack]:
        """A row of tags for each track that was read, in one pass of the network, and the failed tracks."""
        results: list[Row | FailedTrack] = [track for track in tracks if isinstance(track, FailedTrack)]
        read = [track for track in tracks if isinstance(track, Track)]
        with self._timer.timed("model"):
            return results + self._tagger.tag(
                read, model_id=self._plan.parameters["model_id"], run_id=self._plan.run_id
            )

    def write(self, shard: int, results: Sequence[Row | FailedTrack], times_before: StageTimes = ZERO) -> ShardBatch:
        """Write the tags and complete the shard."""
        rows = [result for result in results if not isinstance(result, FailedTrack)]
        output = self._plan.folder / f"tags-{shard:06}-{self._suffix}.parquet"
        tags = pa.Table.from_pylist(rows, schema=TAGS)
        with self._timer.timed("write"):
            if rows:
                output.write_bytes(to_bytes(tags))
        result = ShardResult(
            shard=shard,
            output=output.name if rows else "",
            done=len(rows),
            failed=len(results) - len(rows),
            n_segments=sum(row["n_segments"] for row in rows),
            audio_s=sum(row["duration_s"] for row in rows),
            spent=times_before + self._timer.delta(),
        )
        return finish_shard(self._plan, result, results, _count_unknown(tags))


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """What the driver learns of a shard, for people who watch the run."""

    ended: int  # tracks
    tagged: int
    failures: dict[str, int]  # "stage/error" -> tracks
    unknown: dict[str, tuple[int, int]]  # task -> tracks with an unknown label, of so many that the model looked at
    seconds: dict[str, float]  # by stage
    fetched_bytes: int


def _count_unknown(tags: pa.Table) -> dict[str, tuple[int, int]]:
    """As in `ShardCounts`. A track has no confidence if it has no sound, or if the model lacks the task."""
    judged = {task: tags.filter(tags[f"{task}_confidence"].is_valid()) for task in TASKS}
    return {task: (rows[task].null_count, len(rows)) for task, rows in judged.items()}


def finish_shard(
    plan: WorkPlan,
    result: ShardResult,
    tracks: Sequence[Track | Row | FailedTrack],
    unknown: dict[str, tuple[int, int]] | None = None,
) -> ShardBatch:
    """Write a shard's result and the failures among its tracks, and return its counts for Ray Data.

    "counts" holds `ShardCounts` as JSON.
    """
    model_id = plan.parameters.get("model_id")  # an extraction has none, and counts no attempts of earlier runs
    failures = [
        track.as_row(model_id=model_id, run_id=plan.run_id, gives_up=_lasts_too_long(track, plan))
        for track in tracks
        if isinstance(track, FailedTrack)
    ]
    work_plan.complete_shard(plan, result, failures)
    counts = ShardCounts(
        ended=result.done + result.failed + result.left,
        tagged=result.done,
        failures=dict(Counter(f"{row['stage']}/{row['error']}" for row in failures)),
        unknown=unknown or {},
        seconds=result.spent.seconds,
        fetched_bytes=result.spent.fetched_bytes,
    )
    return {
        "done": np.array([result.done]),
        "failed": np.array([result.failed]),
        "counts": np.array([json.dumps(asdict(counts))]),
    }


def _lasts_too_long(track: FailedTrack, plan: WorkPlan) -> bool:
    """Whether the track failed first so long before this run that later nights shall not try it again."""
    first, days = track.row.get("first_run_id"), plan.parameters.get("retry_days")
    return first is not None and days is not None and days_between(first, plan.run_id) >= days
