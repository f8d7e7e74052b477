"""Work plan: the tracks of a run, frozen on storage and divided into shards.

A shard is the unit of work, of retry and of resuming: a few tracks that one worker handles at once. The plan is written
before any work starts, as Parquet files with one row group per shard. `plan.json` is written last; without it the plan
is ignored. A worker completes a shard by writing its result file, with the shard's failures and counts. A shard with a
result file is complete and is never repeated. Sizes are numbers of tracks.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.errors import InputError
from mtl_core.schema import FAILURES
from mtl_core.storage.concurrency import PARALLEL_SMALL_FILES, bounded_map
from mtl_core.storage.location import Location, written_at
from mtl_core.storage.parquet import conform, to_bytes
from mtl_core.storage.row_file import RowFile
from mtl_core.timing import ZERO, StageTimes

MAX_TRACKS_PER_SHARD = 32  # a crash costs a worker at most SHARDS_PER_WORKER times this many tracks
SHARDS_PER_WORKER = 2  # one is in work, the next is downloaded or the last is written
SHARDS_PER_FILE = 512  # 611 files for ten million tracks; each reader of a shard reads a footer of 0.3 MB
RUNS_IN_PROGRESS = "_run"  # folder under the tables: RUN_ID/ with the plan and the uncommitted work of a run
_PLAN = "plan.json"
_COUNTS = b"counts"


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """A frozen plan."""

    folder: Location  # of the plan and its results
    run_id: str
    n_tracks: int
    tracks_per_shard: int  # in each shard but the last
    parameters: dict[str, Any]  # what the plan was made from; a run with other parameters needs another plan
    shards_per_file: int = SHARDS_PER_FILE

    @property
    def n_shards(self) -> int:
        """Number of shards; they are numbered from 0."""
        return -(-self.n_tracks // self.tracks_per_shard)

    @property
    def n_files(self) -> int:
        """Number of the plan's Parquet files."""
        return -(-self.n_shards // self.shards_per_file)


def shard_size(n_tracks: int, workers: int, most: int = MAX_TRACKS_PER_SHARD) -> int:
    """Tracks per shard: at most `most`, and few enough that every worker gets several shards."""
    return max(1, min(most, n_tracks // (4 * workers)))


def write_plan(
    tracks: pa.Table | RowFile,
    folder: Location,
    *,
    run_id: str,
    tracks_per_shard: int,
    parameters: dict[str, Any],
    shards_per_file: int = SHARDS_PER_FILE,
) -> WorkPlan:
    """Write the plan of a run, whose `tracks` are divided into shards in their order. Files are encoded in memory."""
    plan = WorkPlan(
        folder=folder,
        run_id=run_id,
        n_tracks=len(tracks),
        tracks_per_shard=tracks_per_shard,
        parameters=parameters,
        shards_per_file=shards_per_file,
    )
    tracks_per_file = plan.shards_per_file * tracks_per_shard

    def write(number: int) -> None:
        rows = tracks.slice(number * tracks_per_file, tracks_per_file)
        table = rows.to_table() if isinstance(rows, RowFile) else rows
        data = to_bytes(table, row_group_size=tracks_per_shard, compression="zstd")
        _plan_file(folder, number).write_bytes(data)

    for _ in bounded_map(write, range(plan.n_files)):
        pass
    (folder / _PLAN).write_json(asdict(plan) | {"folder": folder.uri})
    return plan


def load_plan(folder: Location) -> WorkPlan | None:
    """The plan in `folder`; None if there is none or its writing was cut short.

    Raises InputError where a newer version of this program has written it.
    """
    try:
        values = json.loads((folder / _PLAN).read_bytes())
    except FileNotFoundError:
        return None
    if "asked" in values:  # version 0.1
        values["parameters"] = values.pop("asked")
    _require_known(values, WorkPlan, folder / _PLAN)
    return WorkPlan(**values | {"folder": folder})


def _require_known(values: Mapping[str, Any], kind: type, file: Location) -> None:
    """Raise InputError unless all values are fields of the dataclass."""
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise InputError(
            f"{file}: a newer version of this program has begun this run, as {', '.join(sorted(unknown))} shows: end "
            f"the run with that version, or delete its folder to begin anew"
        )


def delete_plan(folder: Location) -> None:
    """Delete a plan and the work of its run. `plan.json` goes first, so that a half-deleted plan is ignored."""
    (folder / _PLAN).delete()
    folder.delete_tree()


def runs_in_progress(root: Location) -> list[Location]:
    """The folders of the runs under the tables' root that are not finished, sorted by run id."""
    return [root / RUNS_IN_PROGRESS / run_id for run_id in sorted((root / RUNS_IN_PROGRESS).names())]


def _plan_file(folder: Location, number: int) -> Location:
    return folder / f"plan-{number:05}.parquet"


def _result_file(folder: Location, shard: int) -> Location:
    return folder / f"done-{shard:06}.parquet"


def read_shard(plan: WorkPlan, shard: int) -> list[dict[str, Any]]:
    """The tracks of a shard, as rows."""
    return list(read_shard_table(plan, shard).to_pylist())


def read_shard_table(plan: WorkPlan, shard: int) -> pa.Table:
    """The tracks of a shard."""
    with _plan_file(plan.folder, shard // plan.shards_per_file).open_arrow() as file:
        return pq.ParquetFile(file).read_row_group(shard % plan.shards_per_file)


def _plan_schema(plan: WorkPlan) -> pa.Schema:
    with _plan_file(plan.folder, 0).open_arrow() as file:
        return pq.read_schema(file).remove_metadata()


def read_columns(plan: WorkPlan, columns: list[str]) -> RowFile:
    """Some columns of all tracks of the plan, in order."""

    def read(number: int) -> list[pa.RecordBatch]:
        with _plan_file(plan.folder, number).open_arrow() as file:
            return pq.ParquetFile(file).read(columns, use_threads=False).combine_chunks().to_batches()

    schema = _plan_schema(plan)
    batches = (batch for part in bounded_map(read, range(plan.n_files)) for batch in part)
    return RowFile.write(batches, pa.schema([schema.field(name) for name in columns]))


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """The counts of a completed shard."""

    shard: int  # its number
    output: str  # name of the file that the worker wrote; "" for none
    done: int  # tracks
    failed: int  # tracks
    n_segments: int  # of all done tracks
    audio_s: float  # of all done tracks
    spent: StageTimes  # time of the worker and its decoder process
    left: int = 0  # tracks that were neither done nor failed, and stay as they are
    refused: str = ""  # name of a file with those that another run has to do, as they are planned; "" for none


def complete_shard(plan: WorkPlan, result: ShardResult, failures: list[dict[str, Any]]) -> None:
    """Complete a shard: write its counts and its rows of `FAILURES` atomically, as one file.

    If the shard has a result file already, that one stays. So a leftover worker of a killed run cannot change what a
    later run has verified.
    """
    schema = FAILURES.with_metadata({_COUNTS: json.dumps(asdict(result)).encode()})
    _result_file(plan.folder, result.shard).put_if_absent(to_bytes(pa.Table.from_pylist(failures, schema=schema)))


def completed_shards(plan: WorkPlan) -> set[int]:
    """The numbers of the completed shards."""
    return {int(file.name[5:11]) for file in plan.folder.files() if file.name.startswith("done-")}


def completion_times(plan: WorkPlan) -> dict[int, float]:
    """Each completed shard, and when its result was written, in seconds since 1970 by the store's clock."""
    return {int(path[5:11]): written_at(entry) for path, entry in plan.folder.walk() if path.startswith("done-")}


def open_shards(plan: WorkPlan) -> list[int]:
    """The shards that are not complete yet, in order."""
    completed = completed_shards(plan)
    return [shard for shard in range(plan.n_shards) if shard not in completed]


def count_tracks(plan: WorkPlan, shards: Iterable[int]) -> int:
    """How many tracks these shards hold."""
    return sum(min(plan.tracks_per_shard, plan.n_tracks - shard * plan.tracks_per_shard) for shard in shards)


def read_results(plan: WorkPlan, shards: Iterable[int]) -> tuple[list[ShardResult], pa.Table]:
    """The results of some shards, by shard, and all their failures (`FAILURES`).

    A column that `FAILURES` gained since a result was written is null in its rows. Raises InputError where a worker of
    a newer version has written one.
    """

    def read(shard: int) -> pa.Table:
        data = _result_file(plan.folder, shard).read_bytes()
        return pq.read_table(pa.BufferReader(data), use_threads=False)

    results, failures = [], [FAILURES.empty_table()]
    for table in bounded_map(read, sorted(shards), PARALLEL_SMALL_FILES):
        counts = json.loads(table.schema.metadata[_COUNTS])
        _require_known(counts, ShardResult, plan.folder / _PLAN)
        _require_known(counts["spent"], StageTimes, plan.folder / _PLAN)
        results.append(ShardResult(**counts | {"spent": StageTimes(**counts["spent"])}))
        if len(table):
            failures.append(conform(table, FAILURES))
    return results, pa.concat_tables(failures)


def read_refused(plan: WorkPlan, results: Iterable[ShardResult]) -> RowFile:
    """The tracks of the plan that the workers refused. Where version 0.2 wrote them, all but the track_id is null."""
    schema = _plan_schema(plan)

    def read(name: str) -> list[pa.RecordBatch]:
        data = (plan.folder / name).read_bytes()
        return conform(pq.read_table(pa.BufferReader(data), use_threads=False), schema).to_batches()

    names = [result.refused for result in results if result.refused]
    batches = (batch for part in bounded_map(read, names) for batch in part)
    return RowFile.write(batches, schema)


def sum_results(results: list[ShardResult]) -> dict[str, Any]:
    """The counts and costs of a run; planned = done + failed + left."""
    spent = sum((result.spent for result in results), ZERO)
    done, failed, left = (sum(getattr(result, name) for result in results) for name in ("done", "failed", "left"))
    return {
        "planned": done + failed + left,
        "done": done,
        "failed": failed,
        "left": left,
        "n_segments": sum(result.n_segments for result in results),
        "audio_hours": round(sum(result.audio_s for result in results) / 3600, 4),
        "seconds_by_stage": {stage: round(value, 2) for stage, value in spent.seconds.items()},
        "cpu_s": round(spent.cpu_s, 2),
        "fetched_bytes": spent.fetched_bytes,
    }


def count_errors(failures: pa.Table) -> dict[str, int]:
    """Number of failures by kind: {"stage/error": count}."""
    pairs = zip(failures["stage"].to_pylist(), failures["error"].to_pylist(), strict=True)
    return dict(Counter(f"{stage}/{error}" for stage, error in pairs))
