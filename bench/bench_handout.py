"""How fast one driver hands out shards: python bench/bench_handout.py [SHARDS]

Two workers take SHARDS shards (default 4,000) through Ray Data, as in a night, but do nothing with them. So only the
work of the driver and of Ray is left. Takes about a minute with 4,000 shards.

Prints, and writes to bench-run/handout.json, what the driver needs a shard after the first shard has ended (CPU and
wall milliseconds), and its peak memory.
"""

import json
import resource
import sys
import time
from pathlib import Path

from bench_tagging import OUT

from mtl_core.pipelines.workers import cluster, shard_pool
from mtl_core.storage import work_plan
from mtl_core.storage.work_plan import ShardResult
from mtl_core.timing import ZERO

WORKERS = 2


class Idle:
    """A worker that reports each shard as complete."""

    def __call__(self, shard: int) -> ShardResult:
        return ShardResult(shard=shard, output="", done=32, failed=0, n_segments=0, audio_s=0.0, spent=ZERO)


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(n_shards: int = 4000) -> None:
    stage = shard_pool.Stage(make=Idle, workers=WORKERS, resources={"num_cpus": 1}, calls=work_plan.SHARDS_PER_WORKER)
    with cluster.connected(num_cpus=WORKERS):
        peak_before_mib, start = peak_mib(), time.monotonic()
        results = iter(shard_pool.shard_results(list(range(n_shards)), [stage]))
        next(results)
        first_s, cpu_before_s, start = time.monotonic() - start, cpu_s(), time.monotonic()
        n_others = sum(1 for _ in results)
        wall_s, driver_s = time.monotonic() - start, cpu_s() - cpu_before_s
    figures = {
        "shards": n_shards,
        "first_after_s": round(first_s, 1),
        "driver_cpu_ms_a_shard": round(1000 * driver_s / n_others, 2),
        "wall_ms_a_shard": round(1000 * wall_s / n_others, 2),
        "peak_mib_before": peak_before_mib,
        "peak_mib": peak_mib(),
    }
    print(figures)
    OUT.mkdir(exist_ok=True)
    (Path(OUT) / "handout.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]))
