"""Workers: the actors that take a plan's shards one after another, each shard from its tracks to its mark.

Shards, not rows, go through Ray Data: a shard is a number on its way in and its counts on its way out, audio and mels
never cross the object store, nothing is read or written by tasks of Ray's own, so that every logical CPU can hold an
actor without a deadlock. A worker that dies loses its shard alone, which Ray gives to another.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import ray.data

from mtl_core import shards
from mtl_core.pipelines.progress import Progress
from mtl_core.shards import Plan


class Worker(Protocol):
    """Made once in each actor; does a shard and writes its mark."""

    def __call__(self, shard: int) -> shards.Mark: ...


class _Actor:
    """What Ray Data makes of a `Worker`: batches of one shard."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._worker = make()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mark = self._worker(int(batch["item"][0]))
        return {"done": np.array([mark.done]), "failed": np.array([mark.failed])}


def work_off(
    plan: Plan,
    make: Callable[[], Worker],
    *,
    workers: int,
    what: str,
    may_go_on: Callable[[], None] = lambda: None,
    **resources: Any,
) -> int:
    """Do every shard of `plan` that has no mark, show the progress, and return the tracks done by this call.

    Args:
        plan: frozen.
        make: makes a worker, within its actor.
        workers: actors.
        what: the verb of the progress line.
        may_go_on: asked after each shard; raises where the run must end.
        resources: of an actor, as `ray.remote` takes them: `num_cpus`, `num_gpus`, `memory`.
    """
    marked = shards.marked(plan)
    before = sum(_n_tracks(plan, shard) for shard in marked)
    progress = Progress(what, plan.n_tracks, before)
    still_open = [shard for shard in range(plan.n_shards) if shard not in marked]
    if still_open:
        for row in _run(still_open, make, min(workers, len(still_open)), resources):
            progress.add(row["done"] + row["failed"], row["failed"])
            may_go_on()
    return plan.n_tracks - before


def _run(still_open: list[int], make: Callable[[], Worker], workers: int, resources: dict[str, Any]) -> Iterator[Any]:
    return (
        ray.data.from_items(still_open, override_num_blocks=len(still_open))
        .map_batches(
            _Actor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(make,),
            **resources,
        )
        .iter_rows()
    )


def _n_tracks(plan: Plan, shard: int) -> int:
    return min(plan.tracks_per_shard, plan.n_tracks - shard * plan.tracks_per_shard)
