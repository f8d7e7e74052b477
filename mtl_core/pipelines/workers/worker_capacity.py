"""Worker capacity: how many workers a cluster can hold, by their CPUs, GPUs and memory."""

import os
from dataclasses import dataclass

import ray

from mtl_core import log
from mtl_core.errors import InputError

_WORKER_AT_REST_MIB = 384  # a worker with its decoder before a track is decoded, see bench/bench_memory.py
_LEAST_GROWTH_MIB = 64  # what 5 minutes of any usual format take


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How many workers read audio, and what each of them requests of a node.

    Raises:
        ValueError: a number is out of range.
    """

    num_workers: int | None = None
    """Worker processes; default: one for each CPU of the cluster, as far as the nodes have memory for them."""
    worker_memory_mib: int = 512
    """MiB of a node's memory that Ray sets aside for each worker with its decoder, 1 or more. A file that takes more is
    decoded while the node has room for it, see docs/decoding.md."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"workers must be 1 or more, got {self.num_workers}")
        if self.worker_memory_mib < 1:
            raise ValueError(f"worker memory must be 1 MiB or more, got {self.worker_memory_mib}")

    def decoder_growth_bytes(self) -> int:
        """What a worker's memory leaves for its decoder to grow by; see `DecoderLimits`."""
        return max(_LEAST_GROWTH_MIB, self.worker_memory_mib - _WORKER_AT_REST_MIB) * 2**20


@dataclass(frozen=True)
class Workers:
    """The workers of a job that reads audio: how many, and the bytes of memory that each requests."""

    count: int
    memory_bytes: int


def find_workers(options: WorkerOptions) -> Workers:
    """The workers to start, see `require_workers`. Each requests one CPU.

    Ray Data waits for ever for a node that can hold a request. So if no node offers the memory of a worker, it requests
    all that the largest node offers, and one worker starts there. An autoscaler may start larger nodes.
    """
    memory_bytes = options.worker_memory_mib * 2**20
    offered = [
        int(node["Resources"].get("memory", 0))
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    if offered and max(offered) < memory_bytes and not is_autoscaling():
        memory_bytes = max(offered)
        log.warning(
            f"a worker requests {options.worker_memory_mib} MiB of memory, and no node offers more than "
            f"{_amount('memory', memory_bytes)}: one worker starts there all the same"
        )
    workers = Workers(require_workers(options.num_workers, memory_bytes=memory_bytes), memory_bytes)
    by_cpus = _capacity({"CPU": 1})
    if options.num_workers is None and workers.count == _capacity({"CPU": 1, "memory": memory_bytes}) < by_cpus:
        log.warning(
            f"the nodes have CPUs for {by_cpus} workers, and memory for {workers.count} of "
            f"{options.worker_memory_mib} MiB"
        )
    return workers


def require_workers(
    workers: int | None,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    memory_bytes: int = 0,
    all_at_once: bool = False,
) -> int:
    """How many workers to start: as many as are asked for, otherwise as many as the nodes can hold now.

    On an autoscaling cluster any number can be asked for. On a fixed cluster some of the workers are enough, because a
    node may come back; if not even one fits, it never will.

    Args:
        workers: None: as many as fit; on a local Ray at most one for each CPU of the machine.
        num_cpus, num_gpus, memory_bytes: of one worker.
        all_at_once: fail if not all of them fit.

    Raises:
        InputError: the cluster cannot hold them, or it holds none now and no number was given.
    """
    needs = {"CPU": num_cpus, "GPU": num_gpus, "memory": memory_bytes}
    capacity = _capacity(needs)
    if workers is None and not capacity and is_autoscaling():
        raise InputError("the cluster holds no worker now and grows on demand: give their number with --num-workers N")
    if (workers or 1) > capacity and not is_autoscaling():
        each = " and ".join(_amount(name, amount) for name, amount in needs.items() if amount)
        total = ", ".join(
            _amount(name, ray.cluster_resources().get(name, 0), "s")
            for name, amount in needs.items()
            if amount or name != "memory"
        )
        message = f"{workers or 1} workers of {each} each: the cluster has room for {capacity} ({total} in all)"
        if not capacity or all_at_once:
            raise InputError(message)
        log.warning(f"{message}; the others wait")
    if workers is not None:
        return workers
    return capacity if os.environ.get("RAY_ADDRESS") else min(capacity, os.cpu_count() or 1)


def _amount(resource: str, amount: float, plural: str = "") -> str:
    return f"{amount / 2**20:.0f} MiB of memory" if resource == "memory" else f"{amount:g} {resource}{plural}"


def cpus_per_worker(workers: int, *, num_gpus: int = 0) -> float:
    """The CPUs, one or a fraction of one, that each of some workers can have if all must run at the same time.

    Raises:
        InputError: the cluster cannot hold them.
    """
    shares = (1.0, 0.5, 0.25, 0.1)
    if is_autoscaling():
        return shares[0]
    share = next((cpus for cpus in shares if _capacity({"CPU": cpus, "GPU": num_gpus}) >= workers), shares[-1])
    require_workers(workers, num_cpus=share, num_gpus=num_gpus, all_at_once=True)
    return share


def _capacity(needs: dict[str, float]) -> int:
    """How many workers with these needs the nodes hold now."""
    return sum(
        min(int(node["Resources"].get(name, 0) / amount + 1e-9) for name, amount in needs.items() if amount)
        for node in ray.nodes()
        if node["Alive"]
    )


def is_autoscaling() -> bool:
    """Whether an autoscaler starts nodes on demand: its nodes carry a label that no others have."""
    return any("ray.io/node-group" in node["Labels"] for node in ray.nodes() if node["Alive"])


def gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
