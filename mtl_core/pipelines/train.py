"""Train: mels -> Ray Train -> artifact.

Each worker reads its own share of the mels (`batches`); only the shuffle buffers are held. A training is named by all
that shapes it: the same command takes up one that was interrupted, and recognises one that has ended.
"""

import os
import platform
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import LoggingConfig
from ray.util.queue import Queue

from mtl_core.canonical import run_sha256
from mtl_core.dataset import splits
from mtl_core.dataset.loader import SplitSegments, select_tracks
from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.dataset.vocabulary import MISSING, TASKS, Vocabulary
from mtl_core.errors import InputError
from mtl_core.inference import artifact
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.artifact import Artifact
from mtl_core.model.cnn import ModelConfig, MultitaskCNN, drop_head
from mtl_core.model.recipes import recipe as recipe_named
from mtl_core.model.training_check import check_training
from mtl_core.pipelines.training import train_monitor
from mtl_core.pipelines.training.checkpoints import start_of
from mtl_core.pipelines.training.train_loop import TrainSpec, train_worker
from mtl_core.pipelines.workers import cluster
from mtl_core.storage import lease
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location, content_id

MAX_FAILURES = 3  # of workers, each costing at most the epoch it happened in


def train(
    *,
    mels: Location,
    out: Location,
    tasks: Sequence[str] = TASKS,
    recipe: str = "paper",
    split: str = "paper",
    fold: int = 0,
    group_column: str | None = None,
    epochs: int | None = None,
    alpha: float | None = None,
    num_workers: int = 1,
    use_gpu: bool = False,
    drop_heads: Sequence[str] = (),
    seed: int = 0,
) -> str:
    """Train a model on the mels and write its artifact to `out`, in place of one that is there.

    The same call after a crash takes up where the last epoch ended, and does nothing after the end. Classes are the
    labels of the training part.

    Args:
        mels: folder of mels.
        out: folder of the artifact; checkpoints lie in its `_train` until the artifact is written, metrics for
            TensorBoard in its `_tensorboard`.
        tasks: of `TASKS`, at least one.
        recipe: name in `RECIPES`.
        split: kind, one of `splits.KINDS`.
        fold: for the split `kfold`.
        group_column: column whose values are never straddled; None is the kind's own.
        epochs: >= 1; None is the recipe's.
        alpha: weight of the language loss beside the artist loss, >= 0; None is the recipe's.
        num_workers: data-parallel workers, >= 1; must divide the recipe's global batch.
        use_gpu: one GPU a worker.
        drop_heads: tasks whose heads are left out of the artifact.
        seed: of the split and of the training.

    Returns:
        A summary for people.

    Raises:
        InputError: an argument or the mels are wrong; nothing was done.
        ray.train.TrainingFailedError: a worker failed again and again.
    """
    numbers = recipe_named(recipe, epochs=epochs, alpha=alpha)
    tasks = [task for task in TASKS if task in tasks] if set(tasks) <= set(TASKS) else list(tasks)
    check_training(
        tasks=tasks,
        global_batch=numbers.global_batch,
        num_workers=num_workers,
        split=split,
        fold=fold,
        seed=seed,
    )
    _check_drop_heads(tasks, drop_heads)
    check_writable(out)
    source = open_mel_dataset(mels)
    parts = splits.split(source.tracks, kind=split, seed=seed, fold=fold, group_column=group_column)
    # Both are sorted by track_id.
    of_part = {part: source.tracks.filter(pc.equal(parts["split"], part)) for part in splits.SPLIT_NAMES}
    n_segments = {part: pc.sum(table["segments"]).as_py() or 0 for part, table in of_part.items()}
    vocabularies = {task: Vocabulary.of(of_part["train"][task].to_pylist()) for task in tasks}
    for task, vocabulary in vocabularies.items():
        if not len(vocabulary):
            raise InputError(f"{mels}: no track of the training part has a label for {task!r}")
    if n_segments["train"] < num_workers:
        raise InputError(f"{n_segments['train']} training segments are too few for {num_workers} workers")
    stored = {
        part: select_tracks(
            source,
            of_part[part]["track_id"],
            {task: of.encode(of_part[part][task].to_pylist()) for task, of in vocabularies.items()},
        )
        for part in ("train", "validation")
    }
    plan = TrainSpec(
        recipe=numbers,
        model=ModelConfig(
            trunk=numbers.trunk,
            classes={task: len(vocabulary) for task, vocabulary in vocabularies.items()},
            dropout=numbers.dropout,
            batch_norm_momentum=numbers.batch_norm_momentum,
        ),
        seed=seed,
        has_validation=any((classes != MISSING).any() for classes in stored["validation"].targets.values()),
    )
    run = _run_name(source, of_part, vocabularies, plan)
    asked = {"run": run, "workers": num_workers, "gpu": use_gpu, "dropped_heads": sorted(drop_heads)}
    if finished := _finished(out, asked):
        return f"nothing to do: {out} holds the model {finished} of this training"
    with lease.acquire(out):
        with cluster.connected(num_cpus=num_workers):
            result = _fit(stored, plan, out, run, num_workers, use_gpu)
        model = MultitaskCNN(plan.model)
        model.load_state_dict({name: torch.tensor(array) for name, array in result["weights"].items()})
        for task in drop_heads:
            model = drop_head(model, task)
        best = result["history"][result["best_epoch"] - 1]
        metrics = {
            "split": {"kind": split, "seed": seed, "fold": fold, "group_column": group_column},
            "seed": seed,
            "tasks": tasks,
            **asked,
            "tracks": {part: len(table) for part, table in of_part.items()},
            "segments": n_segments,
            "epochs": len(result["history"]),
            "best_epoch": result["best_epoch"],
            "validation_loss": best["validation_loss"],
            "validation": {
                task: {"segments": best["labelled"][task], "top1": top1, "chance": 1 / len(vocabularies[task])}
                for task, top1 in best["top1"].items()
                if best["labelled"][task]
            },
            "history": result["history"],
        }
        identity = artifact.save_artifact(
            Artifact(
                model=model,
                front_end=source.front_end,
                vocabularies={task: vocabularies[task] for task in model.config.classes},
                aggregation=Aggregation(
                    temperature={task: t for task, t in result["temperature"].items() if task in model.config.classes}
                ),
                fingerprint=source.fingerprint,
                metrics=metrics,
                versions=_versions(),
                recipe={"name": recipe, **asdict(numbers)},
            ),
            parts,
            out,
        )
        (out / "_train").delete_tree()
    top1 = ", ".join(f"{task} {score:.1%}" for task, score in best["top1"].items())
    seconds = sum(epoch["seconds"] for epoch in result["history"])
    return (
        f"model {identity}: epoch {result['best_epoch']} of {len(result['history'])}, "
        f"{len(of_part['train']):,} training and {len(of_part['validation']):,} validation tracks, "
        f"{timedelta(seconds=round(seconds))} of training\n"
        f"validation segments right: {top1 or 'there is no validation part'}\n-> {out}"
    )


def _check_drop_heads(tasks: Sequence[str], drop_heads: Sequence[str]) -> None:
    if not set(drop_heads) <= set(tasks) or len(set(drop_heads)) == len(tasks):
        raise InputError(
            f"cannot drop the head {', '.join(drop_heads)} of a model of {', '.join(tasks)}: one must stay"
        )


def _fit(
    parts: dict[str, SplitSegments], plan: TrainSpec, out: Location, run: str, num_workers: int, use_gpu: bool
) -> dict:
    """Run the training loop on the cluster and return what its first worker returns."""
    if use_gpu:
        cluster.require_workers(num_workers, num_cpus=0, num_gpus=1, all_at_once=True)
    worker_cpus = cluster.cpus_per_worker(num_workers, num_gpus=int(use_gpu))
    storage = out / "_train"
    with as_input_error(storage):
        if not storage.on_s3:
            storage.filesystem.makedirs(storage.path, exist_ok=True)
        start = start_of(storage / run)
    progress = Queue(actor_options={"num_cpus": 0})
    watcher = threading.Thread(
        target=train_monitor.report_epochs, args=(progress, plan.recipe.epochs, out / "_tensorboard" / run), daemon=True
    )
    watcher.start()
    trainer = _Trainer(
        train_worker,
        train_loop_config={
            "plan": plan,
            "parts": ray.put(parts),
            "start": start.checkpoint,
            "progress": progress,
        },
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": worker_cpus, "GPU": int(use_gpu)}
        ),
        run_config=RunConfig(
            name=run,
            storage_path=storage.path,
            storage_filesystem=storage.arrow_filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": _MEMORY},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit().return_value
    finally:
        progress.put(None)
        watcher.join(timeout=5)
        progress.shutdown()
    return result


#: Torch then asks for large pages: activations of 70 MB are new memory at each update.
_MEMORY = {"THP_MEM_ALLOC_ENABLE": "1"}


class _Trainer(TorchTrainer):
    """Without the actor that warns each second that it cannot ask the dashboard, which a Ray of our own has not."""

    def _create_default_callbacks(self) -> list:
        callbacks = super()._create_default_callbacks()
        if os.environ.get("RAY_ADDRESS"):
            return callbacks
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


def _run_name(
    source: MelDataset, of_part: dict[str, pa.Table], vocabularies: dict[str, Vocabulary], plan: TrainSpec
) -> str:
    """A name that only the same training on the same files has: Ray Train resumes a run by its name."""
    identity = {
        "mels": source.fingerprint,
        "files": [(str(file), content_id(file.filesystem.info(file.path))) for file in source.files],
        "tracks": {part: table["track_id"].to_pylist() for part, table in of_part.items()},
        "vocabularies": {task: vocabulary.labels for task, vocabulary in vocabularies.items()},
        "plan": asdict(plan),
    }
    return run_sha256(identity)[:16]


def _finished(out: Location, asked: dict[str, Any]) -> str | None:
    """The `model_id` of the artifact in `out` if this very training made it."""
    if not (out / artifact.MODEL_FILE).exists():
        return None
    try:
        found = artifact.load_artifact(out)
    except InputError:  # damaged, or of another version: it is replaced
        return None
    return artifact.model_id(found) if {key: found.metrics.get(key) for key in asked} == asked else None


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "ray", "numpy", "pyarrow")}
    return {"python": platform.python_version(), **packages}
