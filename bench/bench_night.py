"""The driver's work in a night, without decoding: python bench/bench_night.py [MILLIONS [FOLDER]]

Measures a first night of MILLIONS million tracks (default 1), phase by phase, in wall and CPU seconds and with the peak
of resident memory (which includes the pages of mapped files).

1. Checks the manifest, plans the run and freezes it, as the job does.
2. Writes each shard's file of tags and its result, as workers do, but with made-up tags (one track in 1,024 fails).
3. Runs the job itself. `tag_catalogue` resumes this run, in which no shard is open: it reads the results, verifies,
   merges, commits, writes the record, cleans up, and plans again.

FOLDER is kept; a temporary one is deleted. The phases take about 2 minutes a million tracks; step 2 comes on top. Ten
million take some 25 GB of disk. Prints a line a phase, and writes bench-run/night.json.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
from bench_tables import make_manifest, tag_rows
from bench_tagging import OUT, ROOT

from mtl_core.dataset import manifest
from mtl_core.inference.openvino_engine import load_cpu_model
from mtl_core.pipelines import tag_catalogue
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import ShardResult, WorkPlan
from mtl_core.tables import commit, planning
from mtl_core.timing import StageTimes

ONE_FAILURE_IN = 1024  # tracks
STAGE_TIMES = StageTimes(
    seconds={"fetch": 0.01, "decode": 6.0, "features": 0.8, "model": 3.1, "write": 0.02}, cpu_s=10.9
)
RUN = "20261128T010000Z-stubbed"


def phase(name: str, function: Callable[..., Any], phases: list[dict[str, Any]]) -> Callable[..., Any]:
    """Wrap a function so that it prints what it used and appends that to `phases`."""

    def measured(*args: Any, **kwargs: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        result = function(*args, **kwargs)
        after, wall_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        status = Path("/proc/self/status").read_text().splitlines()
        peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        figures = {"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "peak_mib": peak_kib // 1024}
        print(f"{name}: {figures}", flush=True)
        phases.append(figures | {"phase": name})
        return result

    return measured


def freeze(root: Location, phases: list[dict[str, Any]]) -> WorkPlan:
    """Plan a first night and freeze it, as `tag_catalogue` does."""
    model_id = load_cpu_model(root / "best").model_id
    scan, plan, write_plan = (
        phase(name, function, phases)
        for name, function in (
            ("check", manifest.scan),
            ("plan", planning.plan_tracks),
            ("freeze", work_plan.write_plan),
        )
    )
    tracks = plan(scan(root / "manifest.parquet"), root / "out", model_id, retry_failed=False)
    folder = root / "out" / work_plan.RUNS_IN_PROGRESS / RUN
    parameters = {"model_id": model_id, "already_done": 0}
    tracks_per_shard = work_plan.MAX_TRACKS_PER_SHARD
    return write_plan(tracks, folder, run_id=RUN, tracks_per_shard=tracks_per_shard, parameters=parameters)


def work(plan: WorkPlan, first: int, last: int) -> None:
    """Write what workers write for the shards `first` to `last` - 1."""
    size, end = plan.tracks_per_shard, min(last * plan.tracks_per_shard, plan.n_tracks)
    shard = first
    for rows in tag_rows(first * size, end, model_id=plan.parameters["model_id"], run_id=RUN):
        for start in range(0, len(rows), size):
            tags, failures = rows.slice(start, size), []
            if shard * size % ONE_FAILURE_IN == 0:
                failures, tags = [failure(tags.slice(0, 1).to_pylist()[0])], tags.slice(1)
            buffer = pa.BufferOutputStream()
            pq.write_table(tags, buffer)
            output = plan.folder / f"tags-{shard:06}-stub.parquet"
            output.write_bytes(memoryview(buffer.getvalue()))
            done, n_failed = len(tags), len(failures)
            result = ShardResult(
                shard=shard, output=output.name, done=done, failed=n_failed, n_segments=40 * done, audio_s=180.0 * done,
                spent=STAGE_TIMES,
            )  # fmt: skip
            work_plan.complete_shard(plan, result, failures)
            shard += 1


def failure(row: dict[str, Any]) -> dict[str, Any]:
    """A row of failures for the track of this row of tags."""
    track = {name: row[name] for name in ("track_id", "uri", "content_id", "model_id", "run_id")}
    error = {"stage": "decode", "error": "corrupt", "message": "stubbed", "attempts": 1, "permanent": True}
    return track | error | {"failed_at": datetime.now(UTC)}


def resume(root: Location, phases: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the job, which resumes this run, and measure its phases; returns the run's record."""
    functions = (
        ("list the shard results", work_plan, "completed_shards"),
        ("read the shard results", work_plan, "read_results"),
        ("read the plan", work_plan, "read_columns"),
        ("verify and merge", commit, "verify_and_merge"),
        ("commit", commit, "commit_run"),
        ("clean up", work_plan, "delete_plan"),
        ("plan again", planning, "plan_tracks"),
    )
    with ExitStack() as stack:
        for name, module, function in functions:
            measured = phase(name, getattr(module, function), phases)
            stack.enter_context(mock.patch.object(module, function, measured))
        tagging = tag_catalogue.TaggingOptions(num_workers=1)
        (record,) = tag_catalogue.tag_catalogue(root / "manifest.parquet", root / "best", root / "out", tagging).runs
    return record


def main(millions: float = 1, folder: str = "") -> None:
    n = int(float(millions) * 1e6)
    phases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        root = Location(folder or temporary)
        make_manifest(root / "manifest.parquet", n, n_changed=0)
        subprocess.run([sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), root.path, ""], check=True)
        plan = freeze(root, phases)
        start, writers = time.monotonic(), os.cpu_count() or 1
        bounds = [plan.n_shards * i // writers for i in range(writers + 1)]
        commands = [
            [sys.executable, __file__, "--work", plan.folder.uri, str(first), str(last)]
            for first, last in itertools.pairwise(bounds)
        ]
        workers = [subprocess.Popen(command) for command in commands]
        if any([worker.wait() for worker in workers]):
            raise SystemExit("a process that writes shards failed")
        print(f"{plan.n_shards:,} shards written in {time.monotonic() - start:.0f} s", flush=True)
        record = resume(root, phases)
        assert record["planned"] == n and record["failed"] == -(-n // ONE_FAILURE_IN)
    OUT.mkdir(exist_ok=True)
    (OUT / "night.json").write_text(json.dumps({"tracks": n, "shards": plan.n_shards, "phases": phases}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        frozen = work_plan.load_plan(Location(sys.argv[2]))
        assert frozen is not None
        work(frozen, int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
