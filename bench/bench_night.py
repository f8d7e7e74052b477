"""A whole night without its decoding: python bench/bench_night.py [MILLIONS [FOLDER]]

A first night of so many millions of tracks (default 1; 10 take some 25 GB of disk): planned and frozen as the job
does it; then every shard's file of tags and its mark are written as workers do, but with made-up tags (one track in
1,024 fails); then the job itself, `tag_catalogue`, takes up this run, of which nothing is left to work on: it reads
the marks, verifies, merges, commits, writes the record and tidies up. Each phase in wall and CPU seconds and with its
own peak of resident memory (which counts the pages of mapped files, too). FOLDER stays, a temporary one does not.

Prints a line a phase, writes bench-run/night.json.
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
from mtl_core.tables import delta
from mtl_core.tables.maintenance import RUNS_IN_PROGRESS
from mtl_core.timing import StageTimes

FAILS = 1024  # one track in so many
SPENT = StageTimes(seconds={"fetch": 0.01, "decode": 6.0, "features": 0.8, "model": 3.1, "write": 0.02}, cpu_s=10.9)
RUN = "stubbed"


def phase(name: str, function: Callable[..., Any], found: list[dict[str, Any]]) -> Callable[..., Any]:
    """The same function, which tells what it took when it ends."""

    def measured(*args: Any, **kwargs: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        result = function(*args, **kwargs)
        after, wall_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - begun
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        status = Path("/proc/self/status").read_text().splitlines()
        peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        found.append({"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "peak_mib": peak_kib // 1024})
        print(f"{name}: {found[-1]}", flush=True)
        found[-1]["phase"] = name
        return result

    return measured


def frozen(root: Location, found: list[dict[str, Any]]) -> WorkPlan:
    """The plan of a first night, as `tag_catalogue` would have made it."""
    model_id = load_cpu_model(root / "best").model_id
    scan, plan, freeze = (
        phase(name, function, found)
        for name, function in (("check", manifest.scan), ("plan", delta.plan_tracks), ("freeze", work_plan.write_plan))
    )
    tracks = plan(scan(root / "manifest.parquet"), root / "out", model_id, retry_failed=False)
    folder = root / "out" / RUNS_IN_PROGRESS / RUN
    asked = {"model_id": model_id, "already_done": 0}
    return freeze(tracks, folder, run_id=RUN, tracks_per_shard=work_plan.MAX_TRACKS_PER_SHARD, parameters=asked)


def work(plan: WorkPlan, first: int, last: int) -> None:
    """What workers leave of the shards `first` to `last` - 1."""
    size, end = plan.tracks_per_shard, min(last * plan.tracks_per_shard, plan.n_tracks)
    shard = first
    for rows in tag_rows(first * size, end, model_id=plan.parameters["model_id"], run_id=RUN):
        for start in range(0, len(rows), size):
            some, failures = rows.slice(start, size), []
            if shard * size % FAILS == 0:
                failures, some = [failure(some.slice(0, 1).to_pylist()[0])], some.slice(1)
            buffer = pa.BufferOutputStream()
            pq.write_table(some, buffer)
            output = plan.folder / f"tags-{shard:06}-stub.parquet"
            output.write_bytes(memoryview(buffer.getvalue()))
            done, n_failed = len(some), len(failures)
            mark = ShardResult(
                shard=shard, output=output.name, done=done, failed=n_failed, n_segments=40 * done, audio_s=180.0 * done,
                spent=SPENT,
            )  # fmt: skip
            work_plan.complete_shard(plan, mark, failures)
            shard += 1


def failure(row: dict[str, Any]) -> dict[str, Any]:
    known = {name: row[name] for name in ("track_id", "uri", "content_id", "model_id", "run_id")}
    why = {"stage": "decode", "error": "corrupt", "message": "stubbed", "attempts": 1, "permanent": True}
    return known | why | {"failed_at": datetime.now(UTC)}


def taken_up(root: Location, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The job on this run: the record it wrote."""
    parts = (
        ("list the marks", work_plan, "marked"),
        ("read the marks", work_plan, "marks"),
        ("read the plan", work_plan, "read_all"),
        ("verify and merge", delta, "merge"),
        ("commit", delta, "commit"),
        ("tidy up", work_plan, "discard"),
        ("plan again", delta, "plan"),
    )
    with ExitStack() as stack:
        for name, module, function in parts:
            measured = phase(name, getattr(module, function), found)
            stack.enter_context(mock.patch.object(module, function, measured))
        tagging = tag_catalogue.Tagging(workers=1)
        (record,) = tag_catalogue.tag_catalogue(root / "manifest.parquet", root / "best", root / "out", tagging).runs
    return record


def main(millions: float = 1, folder: str = "") -> None:
    n = int(float(millions) * 1e6)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        root = Location(folder or temporary)
        make_manifest(root / "manifest.parquet", n, n_changed=0)
        subprocess.run([sys.executable, str(ROOT / "bench" / "tagging_inputs.py"), root.path, ""], check=True)
        plan = frozen(root, found)
        begun, writers = time.monotonic(), os.cpu_count() or 1
        bounds = [plan.n_shards * i // writers for i in range(writers + 1)]
        commands = [
            [sys.executable, __file__, "--work", plan.folder.uri, str(first), str(last)]
            for first, last in itertools.pairwise(bounds)
        ]
        workers = [subprocess.Popen(command) for command in commands]
        if any([worker.wait() for worker in workers]):
            raise SystemExit("a stubbed worker failed")
        print(f"{plan.n_shards:,} shards written in {time.monotonic() - begun:.0f} s", flush=True)
        record = taken_up(root, found)
        assert record["planned"] == n and record["failed"] == -(-n // FAILS)
    OUT.mkdir(exist_ok=True)
    (OUT / "night.json").write_text(json.dumps({"tracks": n, "shards": plan.n_shards, "phases": found}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        loaded = work_plan.load_plan(Location(sys.argv[2]))
        assert loaded is not None
        work(loaded, int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
