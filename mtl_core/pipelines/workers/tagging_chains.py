"""Tagging chains: the chains of Ray Data workers that tag the shards of a plan, from audio or from the table."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mtl_core.inference.openvino_engine import CpuModel
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.embedding_tagger import EmbeddingTagger
from mtl_core.pipelines.workers import cluster, worker_capacity
from mtl_core.pipelines.workers.shard_workers import ReadAndTagShard, ReadOptions, ReadShard, RetagShard
from mtl_core.pipelines.workers.worker_capacity import Workers
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import SHARDS_PER_WORKER, WorkPlan

if TYPE_CHECKING:
    import ray.data

#: The chain that tags some shards of a plan; its rows are their counts of tracks, see `shard_workers.finish_shard`.
TagShards = Callable[[WorkPlan, list[int]], "ray.data.Dataset"]

GPU_SEGMENTS = 8  # of a track, where a GPU tags it and the user says nothing


def on_cpus(model: CpuModel, read_options: ReadOptions, workers: Workers) -> TagShards:
    """Workers that read and tag."""
    import ray.data

    return lambda plan, shards: ray.data.from_items(shards, override_num_blocks=len(shards)).map_batches(
        ReadAndTagShard,
        fn_constructor_args=(plan, model, read_options, _exit_options(plan)),
        batch_size=1,
        num_cpus=1,
        memory=workers.memory_bytes,
        compute=cluster.actor_pool(workers.count, len(shards), concurrency=SHARDS_PER_WORKER),
    )


def from_table(model: CpuModel, table: Location, workers: Workers, for_gpus: bool) -> TagShards:
    """Workers that tag from the embeddings in the table."""
    import ray.data

    def tag_shards(plan: WorkPlan, shards: list[int]) -> "ray.data.Dataset":
        options = _exit_options(plan)
        if for_gpus:
            segments = _segments_for_gpus(plan, model)
            options = ExitOptions(exit="never", segments=segments)
        tagger = EmbeddingTagger(model.front_end, model.heads, model.vocabularies, model.aggregation, options)
        return ray.data.from_items(shards, override_num_blocks=len(shards)).map_batches(
            RetagShard,
            fn_constructor_args=(plan, table, tagger),
            fn_constructor_kwargs={"only_changed": plan.parameters["only_changed"]},
            batch_size=1,
            num_cpus=1,
            memory=workers.memory_bytes,
            compute=cluster.actor_pool(workers.count, len(shards)),
        )

    return tag_shards


def _exit_options(plan: WorkPlan) -> ExitOptions:
    """Those of the run that wrote the plan, whatever a resuming command says."""
    return ExitOptions(**{name: plan.parameters[name] for name in ("exit", "segments") if name in plan.parameters})


def _segments_for_gpus(plan: WorkPlan, model: CpuModel) -> int | None:
    """The fixed number of segments of a track that a GPU gets; None: all."""
    options = _exit_options(plan)
    calibrated = options.uses_rule and model.aggregation.round_of(GPU_SEGMENTS) is not None
    return GPU_SEGMENTS if calibrated else options.segments


def on_gpus(
    model: CpuModel, read_options: ReadOptions, workers: Workers, model_at: Location, gpu_device: str
) -> TagShards:
    """CPU workers that read, then a worker for each GPU that tags."""
    import ray.data

    gpus = worker_capacity.require_workers(worker_capacity.gpus() or 1, num_cpus=0, num_gpus=1)
    from mtl_core.inference.artifacts.artifact import load_artifact  # torch takes seconds to import
    from mtl_core.pipelines.workers.gpu_workers import TagShard

    artifact = load_artifact(model_at)
    return lambda plan, shards: (
        ray.data.from_items(shards, override_num_blocks=len(shards))
        .map_batches(
            ReadShard,
            fn_constructor_args=(plan, model.front_end, read_options, _segments_for_gpus(plan, model)),
            batch_size=1,
            num_cpus=1,
            memory=workers.memory_bytes,
            compute=cluster.actor_pool(workers.count, len(shards), concurrency=SHARDS_PER_WORKER),
        )
        .map_batches(
            TagShard,
            fn_constructor_args=(plan, artifact, gpu_device),
            batch_size=1,
            num_cpus=0,
            num_gpus=1,
            compute=cluster.actor_pool(gpus, len(shards)),
        )
    )
