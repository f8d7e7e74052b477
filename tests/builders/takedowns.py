"""Builders for takedowns: nights of one shard, and unfinished runs, over tracks that a pattern recognises."""

import numpy as np
import pyarrow as pa

from mtl_core.schema import FAILURES, MANIFEST, TAGS
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import conform, to_bytes
from mtl_core.storage.work_plan import RUNS_IN_PROGRESS, ShardResult, WorkPlan
from mtl_core.tables import commit, delta
from mtl_core.timing import ZERO

IDS = r"track-\d{6}"  # the part of an id that differs


def track(number: int) -> str:
    return f"artist {number // 10}/track-{number:06}"


def ids(*numbers: int) -> pa.Table:
    return pa.table({"track_id": pa.array([track(number) for number in numbers], pa.string())})


def table_of(numbers: np.ndarray, run: str, schema: pa.Schema) -> pa.Table:
    names = [track(int(number)) for number in numbers]
    columns = {
        "track_id": names,
        "uri": [f"s3://masters/{name}" for name in names],
        "content_id": ["c"] * len(names),
        "artist": ["x"] * len(names),
        "message": [f"s3://masters/{name}: moov atom not found" for name in names],
        "stage": ["decode"] * len(names),
        "error": ["corrupt"] * len(names),
        "permanent": [True] * len(names),
        "model_id": ["m"] * len(names),
        "run_id": [run] * len(names),
    }
    return conform(pa.table({name: columns[name] for name in schema.names if name in columns}), schema)


def committed(out: Location, run: str, tagged: np.ndarray, failed: np.ndarray) -> None:
    """A night, with one shard."""
    staged = out / RUNS_IN_PROGRESS / run / "tags.parquet"
    staged.write_bytes(to_bytes(table_of(tagged, run, TAGS)))
    planned = pa.table({"track_id": [track(int(number)) for number in [*tagged, *failed]]})
    failures = table_of(failed, run, FAILURES)
    files = [(staged, len(tagged))] if len(tagged) else []
    verified = commit.verify_and_merge(files, planned, failures, out, run_id=run, model_id="m")
    commit.commit_run(out, verified, lambda: None)
    (out / RUNS_IN_PROGRESS / run).delete_tree()
    (out / "runs" / f"{run}.json").write_json({"run_id": run})


def unfinished(
    out: Location, run: str, tagged: list[int], failed: list[int], parameters: dict | None = None
) -> WorkPlan:
    """A run whose one shard is complete and whose commit has not begun."""
    tracks = conform(table_of(np.array([*tagged, *failed]), run, MANIFEST), MANIFEST)
    plan = work_plan.write_plan(
        tracks.append_column("attempts", pa.array([0] * len(tracks), pa.int32())),
        out / RUNS_IN_PROGRESS / run,
        run_id=run,
        tracks_per_shard=len(tagged) + len(failed),
        parameters={"model_id": "m", "already_done": 0},
    )
    (plan.folder / "tags-0.parquet").write_bytes(to_bytes(table_of(np.array(tagged), run, TAGS)))
    result = ShardResult(
        shard=0, output="tags-0.parquet", done=len(tagged), failed=len(failed), n_segments=0, audio_s=0.0, spent=ZERO
    )
    work_plan.complete_shard(plan, result, table_of(np.array(failed), run, FAILURES).to_pylist())
    return plan


def rows(out: Location, name: str) -> set[str]:
    table = delta.open_table(out, name)
    return set() if table is None else set(table.to_pyarrow_table()["track_id"].to_pylist())


def names(*numbers: int) -> set[str]:
    return {track(number) for number in numbers}
