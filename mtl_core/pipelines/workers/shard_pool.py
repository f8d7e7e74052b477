"""Workers: the actors that take a plan's shards one after another, each shard from its tracks to its mark.

Shards, not rows, go through Ray Data: a shard is a number on its way in and its counts on its way out, nothing is read
or written by tasks of Ray's own, so that every logical CPU can hold an actor without a deadlock. A worker that dies
loses its shards alone, which Ray gives to others. Where two kinds of workers share the work (CPUs read, GPUs tag), the
first hands bytes to the second through the object store, as Ray Data's backpressure allows.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_core.pipelines.workers.progress import Progress
from mtl_core.storage import work_plan
from mtl_core.storage.work_plan import ShardResult, WorkPlan


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A kind of workers.

    Args:
        make: makes a worker, within its actor: the first stage's takes a shard's number, the others' what the stage
            before gave, bytes; the last one writes the shard's mark and gives it back.
        workers: actors.
        resources: of an actor, as `ray.remote` takes them: `num_cpus`, `num_gpus`, `memory`.
        calls: that an actor takes at a time, each in a thread; a worker that overlaps shards wants 2.
    """

    make: Callable[[], Callable[[Any], Any]]
    workers: int
    resources: Mapping[str, float]
    calls: int = 1


class _Actor:
    """What Ray Data makes of a worker: batches of one shard."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = make()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (item,) = batch["item"]
        result = self._work(item if isinstance(item, bytes) else int(item))
        if isinstance(result, ShardResult):
            return {"done": np.array([result.done]), "failed": np.array([result.failed])}
        return {"item": np.array([result], object)}


def run_shards(
    plan: WorkPlan, stages: list[Stage], *, what: str, check_lease: Callable[[], None] = lambda: None
) -> int:
    """Do every shard of `plan` that has no mark, show the progress, and return the tracks done by this call.

    Args:
        plan: frozen.
        stages: that a shard goes through.
        what: the verb of the progress line.
        check_lease: asked after each shard; raises where the run must end.
    """
    marked = work_plan.completed_shards(plan)
    before = sum(_n_tracks(plan, shard) for shard in marked)
    progress = Progress(what, plan.n_tracks, before)
    still_open = [shard for shard in range(plan.n_shards) if shard not in marked]
    if still_open:
        for row in shard_results(still_open, stages):
            progress.add(row["done"] + row["failed"], row["failed"])
            check_lease()
    return plan.n_tracks - before


def shard_results(still_open: list[int], stages: list[Stage]) -> Iterator[Any]:
    """What the last stage says of each of these shards, in no order."""
    import ray.data

    flow = ray.data.from_items(still_open, override_num_blocks=len(still_open))
    for stage in stages:
        workers = min(stage.workers, len(still_open))
        flow = flow.map_batches(
            _Actor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=workers,
                max_tasks_in_flight_per_actor=2,
                max_concurrent_calls_per_actor=stage.calls,
                enable_true_multi_threading=stage.calls > 1,
            ),
            fn_constructor_args=(stage.make,),
            **stage.resources,
        )
    return flow.iter_rows()


def _n_tracks(plan: WorkPlan, shard: int) -> int:
    return min(plan.tracks_per_shard, plan.n_tracks - shard * plan.tracks_per_shard)
