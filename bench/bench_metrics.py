"""What the metrics of a run cost its driver: python bench/bench_metrics.py [SHARDS]

Adds the counts of SHARDS shards (default 20,000) of 32 tracks to the metrics of a run on a local Ray, and lets the run
stand still for 20 s. Prints CPU microseconds a shard and a track, and CPU milliseconds a second of the run.
"""

import json
import sys
import time
from dataclasses import asdict

import pyarrow as pa
import ray

from mtl_core.pipelines.night.metrics import RunMetrics
from mtl_core.pipelines.workers.shard_workers import ShardCounts
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.run_id import new_run_id

TRACKS = 32  # of a shard
COUNTS = ShardCounts(
    ended=TRACKS,
    tagged=TRACKS - 2,
    failures={"decode/corrupt": 1, "fetch/not_found": 1},
    unknown={"artist": (10, 30), "language": (1, 30)},
    seconds={"fetch": 0.01, "decode": 6.0, "features": 0.8, "model": 3.1, "write": 0.02},
    fetched_bytes=200_000_000,
)


def main(shards: int = 20_000, still_s: float = 20.0) -> None:
    out = Location(f"/tmp/bench-metrics-{time.time_ns()}")
    ids = pa.table({"track_id": [str(i) for i in range(TRACKS)]})
    plan = work_plan.write_plan(
        ids, out / "plan", run_id=new_run_id(), tracks_per_shard=TRACKS, parameters={"model_id": "m"}
    )
    counts = json.dumps(asdict(COUNTS))
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    with RunMetrics(plan, out, 0) as metrics:
        start_s = time.thread_time()
        for _ in range(shards):
            metrics.add_shard(counts)
        shard_us = (time.thread_time() - start_s) / shards * 1e6
        start_s = time.process_time()
        time.sleep(still_s)
        ms_per_s = (time.process_time() - start_s) / still_s * 1e3
    ray.shutdown()
    out.delete_tree()
    print(f"{shard_us:.0f} us a shard, {shard_us / TRACKS:.2f} us a track; {ms_per_s:.1f} ms a second in all threads")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
