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

import numpy as np
from bench_tagging import OUT

from mtl_core.pipelines.workers import cluster
from mtl_core.storage.work_plan import SHARDS_PER_WORKER

WORKERS = 2


class Idle:
    """A worker that reports each shard as complete."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"done": np.array([32]), "failed": np.array([0])}


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(n_shards: int = 4000) -> None:
    with cluster.connected(num_cpus=WORKERS):
        import ray.data

        peak_before_mib, start = peak_mib(), time.monotonic()
        results = iter(
            ray.data.from_items(list(range(n_shards)), override_num_blocks=n_shards)
            .map_batches(
                Idle,
                batch_size=1,
                num_cpus=1,
                compute=cluster.actor_pool(WORKERS, n_shards, concurrency=SHARDS_PER_WORKER),
            )
            .iter_rows()
        )
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
