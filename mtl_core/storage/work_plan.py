"""Shard: the unit of work, of retry and of resuming: some tracks of a frozen plan that one worker does in one go.

A run's plan is written to storage before any work, as Parquet files with one row group a shard, and `plan.json` last:
a plan without it is no plan. A worker ends a shard by writing its mark, a file that holds the shard's failures and
counts; a shard with a mark is done and is never done again. Sizes are in tracks.

Contents: `Plan`, `freeze`, `load`, `discard`, `read`, `mark`, `marks`.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.schema import FAILURES
from mtl_core.storage.concurrency import PARALLEL_SMALL_FILES, bounded_map
from mtl_core.storage.location import Location
from mtl_core.timing import StageTimes

MAX_TRACKS_PER_SHARD = 32  # a crash costs a worker AT_ONCE times so many at the most
SHARDS_PER_WORKER = 2  # shards of a worker: one is worked on, the next is fetched or the last is written
_PLAN = "plan.json"
_COUNTS = b"counts"


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """A frozen plan.

    Args:
        folder: where the plan and its marks are.
        run_id: fixed when the plan is made.
        n_tracks: tracks in the plan.
        tracks_per_shard: in every shard but the last.
        parameters: what the plan was made from; a plan made from something else is another run.
        shards_per_file: ten million tracks are 611 files; the footer that each shard's reader has to read takes 0.3 MB.
    """

    folder: Location
    run_id: str
    n_tracks: int
    tracks_per_shard: int
    parameters: dict[str, Any]
    shards_per_file: int = 512

    @property
    def n_shards(self) -> int:
        return -(-self.n_tracks // self.tracks_per_shard)

    @property
    def n_files(self) -> int:
        return -(-self.n_shards // self.shards_per_file)


def shard_size(n_tracks: int, workers: int) -> int:
    """Tracks a shard: small enough that every worker has several, at most `MOST_TRACKS`."""
    return max(1, min(MAX_TRACKS_PER_SHARD, n_tracks // (4 * workers)))


def write_plan(
    tracks: pa.Table, folder: Location, *, run_id: str, tracks_per_shard: int, parameters: dict[str, Any]
) -> WorkPlan:
    """Write a plan of `tracks`, in their order."""
    plan = WorkPlan(
        folder=folder, run_id=run_id, n_tracks=len(tracks), tracks_per_shard=tracks_per_shard, parameters=parameters
    )
    tracks_per_file = plan.shards_per_file * tracks_per_shard

    def write(number: int) -> None:
        buffer = pa.BufferOutputStream()
        rows = tracks.slice(number * tracks_per_file, tracks_per_file)
        pq.write_table(rows, buffer, row_group_size=tracks_per_shard, compression="zstd")
        _file(folder, number).write_bytes(memoryview(buffer.getvalue()))

    for _ in bounded_map(write, range(plan.n_files)):
        pass
    about = asdict(plan) | {"folder": folder.uri}
    (folder / _PLAN).write_bytes(json.dumps(about, indent=1).encode())
    return plan


def load_plan(folder: Location) -> WorkPlan | None:
    """The plan in `folder`; None where there is none or it was not finished."""
    if not (folder / _PLAN).exists():
        return None
    fields = json.loads((folder / _PLAN).read_bytes())
    if "asked" in fields:  # version 0.1
        fields["parameters"] = fields.pop("asked")
    return WorkPlan(**fields | {"folder": folder})


def delete_plan(folder: Location) -> None:
    """Remove a plan and what its run left, the plan first: what a crash leaves of it is no plan."""
    (folder / _PLAN).delete()
    folder.delete_tree()


def _file(folder: Location, number: int) -> Location:
    return folder / f"plan-{number:05}.parquet"


def read_shard(plan: WorkPlan, shard: int) -> list[dict[str, Any]]:
    """The tracks of a shard, as rows."""
    part = _file(plan.folder, shard // plan.shards_per_file)
    with part.arrow_filesystem.open_input_file(part.path) as file:
        return list(pq.ParquetFile(file).read_row_group(shard % plan.shards_per_file).to_pylist())


def read_columns(plan: WorkPlan, columns: list[str]) -> pa.Table:
    """All tracks of the plan, in order."""

    def columns_of(number: int) -> pa.Table:
        part = _file(plan.folder, number)
        with part.arrow_filesystem.open_input_file(part.path) as file:
            return pq.ParquetFile(file).read(columns, use_threads=False).combine_chunks()

    return pa.concat_tables(bounded_map(columns_of, range(plan.n_files)))


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What a done shard left behind.

    Args:
        shard: its number.
        output: name of the file it wrote; "" for none.
        done, failed: tracks.
        n_segments: of all done tracks.
        audio_s: seconds of audio of the done tracks.
        spent: by the worker and its decoder child.
    """

    shard: int
    output: str
    done: int
    failed: int
    n_segments: int
    audio_s: float
    spent: StageTimes


def complete_shard(plan: WorkPlan, counts: ShardResult, failures: list[dict[str, Any]]) -> None:
    """End a shard: its failures (rows of `FAILURES`) and its counts in one file, written in one step.

    The first mark of a shard stays: a worker of a killed run that lives on changes nothing that was verified since.
    """
    schema = FAILURES.with_metadata({_COUNTS: json.dumps(asdict(counts)).encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(failures, schema=schema), buffer)
    (plan.folder / f"done-{counts.shard:06}.parquet").put_if_absent(memoryview(buffer.getvalue()))


def completed_shards(plan: WorkPlan) -> set[int]:
    """The shards that are done."""
    return {int(file.name[5:11]) for file in plan.folder.files() if file.name.startswith("done-")}


def open_shards(plan: WorkPlan) -> list[int]:
    """The shards that are not complete yet, in order."""
    completed = completed_shards(plan)
    return [shard for shard in range(plan.n_shards) if shard not in completed]


def count_tracks(plan: WorkPlan, shards: Iterable[int]) -> int:
    """How many tracks these shards hold."""
    return sum(min(plan.tracks_per_shard, plan.n_tracks - shard * plan.tracks_per_shard) for shard in shards)


def read_results(plan: WorkPlan, numbers: Iterable[int]) -> tuple[list[ShardResult], pa.Table]:
    """The marks of these shards, and all their failures."""

    def read_mark(number: int) -> pa.Table:
        data = (plan.folder / f"done-{number:06}.parquet").read_bytes()
        return pq.read_table(pa.BufferReader(data), use_threads=False)

    found, failures = [], [FAILURES.empty_table()]
    for table in bounded_map(read_mark, sorted(numbers), PARALLEL_SMALL_FILES):
        counts = json.loads(table.schema.metadata[_COUNTS])
        found.append(ShardResult(**counts | {"spent": StageTimes(**counts["spent"])}))
        if len(table):
            failures.append(table.replace_schema_metadata())
    return found, pa.concat_tables(failures)


def sum_results(found: list[ShardResult]) -> dict[str, Any]:
    """The counts of a run: planned = done + failed, and what they cost."""
    seconds: Counter[str] = Counter()
    for one in found:
        seconds.update(one.spent.seconds)
    done, failed = sum(one.done for one in found), sum(one.failed for one in found)
    return {
        "planned": done + failed,
        "done": done,
        "failed": failed,
        "n_segments": sum(one.n_segments for one in found),
        "audio_hours": round(sum(one.audio_s for one in found) / 3600, 4),
        "seconds_by_stage": {stage: round(value, 2) for stage, value in seconds.items()},
        "cpu_s": round(sum(one.spent.cpu_s for one in found), 2),
    }


def count_errors(failures: pa.Table) -> dict[str, int]:
    """How many failures of each kind there are: {"stage/error": count}."""
    pairs = zip(failures["stage"].to_pylist(), failures["error"].to_pylist(), strict=True)
    return dict(Counter(f"{stage}/{error}" for stage, error in pairs))
