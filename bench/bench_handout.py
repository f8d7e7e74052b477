"""How fast one driver hands out shards: python bench/bench_handout.py [SHARDS]

Workers that do nothing take so many shards (default 4,000) as those of a night do, through Ray Data: what is left is
the driver's own work and that of Ray. Prints, and writes to bench-run/handout.json, the driver's CPU milliseconds a
shard after the first one came back, its wall milliseconds, and its peak memory.
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
    """Says that a shard is done."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"done": np.array([32]), "failed": np.array([0])}


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(n: int = 4000) -> None:
    with cluster.connected(num_cpus=WORKERS):
        import ray.data

        before_mib, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, time.monotonic()
        rows = iter(
            ray.data.from_items(list(range(n)), override_num_blocks=n)
            .map_batches(
                Idle,
                batch_size=1,
                num_cpus=1,
                compute=cluster.actor_pool(WORKERS, n, concurrency=SHARDS_PER_WORKER),
            )
            .iter_rows()
        )
        next(rows)
        first_s, cpu_before, since = time.monotonic() - begun, cpu_s(), time.monotonic()
        n_others = sum(1 for _ in rows)
        wall_s, driver_s = time.monotonic() - since, cpu_s() - cpu_before
    found = {
        "shards": n,
        "first_after_s": round(first_s, 1),
        "driver_cpu_ms_a_shard": round(1000 * driver_s / n_others, 2),
        "wall_ms_a_shard": round(1000 * wall_s / n_others, 2),
        "peak_mib_before": before_mib,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(found)
    OUT.mkdir(exist_ok=True)
    (Path(OUT) / "handout.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]))
