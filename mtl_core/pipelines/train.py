"""Train models: mels -> data-parallel workers of Ray Train -> an artifact.

Each worker reads its own share of the mels. All models of a command train in one group of workers, one after the other.
A training is named by a hash of everything that shapes it. The same command therefore resumes a training that was
interrupted, model by model, and recognises one that is finished.
"""

import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from mtl_core.canonical import run_sha256
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.dataset.splits import CROSSFIT, NONE
from mtl_core.dataset.vocabulary import MISSING
from mtl_core.errors import InputError
from mtl_core.model.recipes import Recipe
from mtl_core.model.recipes import recipe as recipe_named
from mtl_core.pipelines.training import train_artifact, train_monitor
from mtl_core.pipelines.training.train_data import ModelData, TrainData, n_segments, split_models
from mtl_core.pipelines.training.train_loop import TrainResult, TrainSpec, train_worker
from mtl_core.pipelines.training.train_options import TrainOptions
from mtl_core.pipelines.workers import cluster, worker_capacity
from mtl_core.storage import lease
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location, content_id

MAX_FAILURES = 3  # of workers, each costing at most the epoch it happened in
STATE_FOLDER = "_train"
#: Makes torch ask for large pages: activations of 70 MB are allocated anew at each update.
WORKER_ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}


def train(mels: Location, out: Location, options: TrainOptions) -> str:
    """Train a model and write its artifact, replacing one that is there.

    Args:
        mels: folder of mels. Classes are the labels of its training part.
        out: folder of the artifact. The training's state is in its `_train` until then, metrics in `_tensorboard`.
        options: what is trained.

    Returns:
        A summary for people.

    Raises:
        InputError: an option or the mels are wrong; nothing was done.
        ray.train.TrainingFailedError: workers failed more than `MAX_FAILURES` times.
    """
    recipe = recipe_named(options.recipe, epochs=options.epochs, alpha=options.alpha)
    options.check(recipe)
    check_writable(out)
    data = _read_data(mels, options, recipe)
    train_segments = [n_segments(model.tracks["train"]) for model in data.models]
    if min(train_segments) < 2 * options.num_workers:
        raise InputError(f"{min(train_segments)} training segments are too few: a worker needs 2 or more")
    specs = [_spec(model, recipe, options.seed) for model in data.models]
    name = _run_name(data, specs, options)
    run = {
        "run": name,
        "workers": options.num_workers,
        "gpu": options.use_gpu,
        "dropped_heads": sorted(options.drop_head),
    }
    if model_id := train_artifact.finished(out, run):
        return f"nothing to do: {out} holds the model {model_id} of this training"
    with lease.acquire(out):
        with cluster.connected(num_cpus=options.num_workers):
            results = _fit(data, specs, out, name, options)
        model_id, metrics = train_artifact.make_artifact(results, data, recipe, options, run, out)
        (out / STATE_FOLDER).delete_tree()
    return f"model {model_id}: {train_artifact.summary(results, metrics)}\n-> {out}"


def _read_data(mels: Location, options: TrainOptions, recipe: Recipe) -> TrainData:
    """Open, split and label the mels."""
    source = open_mel_dataset(mels)
    split: dict[str, Any] = {"kind": options.split, "seed": options.seed, "group_column": options.group_column}
    if options.split == CROSSFIT:
        split |= {"folds": options.folds}
    elif options.split != NONE:
        split |= {"fold": options.fold}
    try:
        models, assignment = split_models(
            source,
            kind=options.split,
            tasks=options.tasks,
            seed=options.seed,
            fold=options.fold,
            folds=options.folds,
            group_column=options.group_column,
            with_validation=recipe.checkpoint == "lowest_validation_loss",
        )
    except InputError as error:
        raise InputError(f"{mels}: {error}") from None
    return TrainData(source=source, split=split, assignment=assignment, models=models)


def _spec(model: ModelData, recipe: Recipe, seed: int) -> TrainSpec:
    validation = model.tracks["validation"]
    has_labels = any(
        (vocabulary.encode(validation[task].to_pylist()) != MISSING).any()
        for task, vocabulary in model.vocabularies.items()
    )
    config = recipe.model_config({task: len(vocabulary) for task, vocabulary in model.vocabularies.items()})
    return TrainSpec(name=model.name, recipe=recipe, model=config, seed=seed, chooses_epoch=has_labels)


def _fit(
    data: TrainData, specs: Sequence[TrainSpec], out: Location, run: str, options: TrainOptions
) -> list[TrainResult]:
    """Run the training loop on the cluster and return the results of its first worker."""
    workers, gpus = options.num_workers, int(options.use_gpu)
    if gpus:
        worker_capacity.require_workers(workers, num_cpus=0, num_gpus=gpus, all_at_once=True)
    worker_cpus = worker_capacity.cpus_per_worker(workers, num_gpus=gpus)
    storage = out / STATE_FOLDER
    with as_input_error(storage):
        if not storage.on_s3:
            storage.filesystem.makedirs(storage.path, exist_ok=True)
    progress = Queue(actor_options={"num_cpus": 0})
    epochs = {spec.name: spec.recipe.epochs for spec in specs}
    monitor = threading.Thread(
        target=train_monitor.report_epochs, args=(progress, epochs, out / "_tensorboard" / run), daemon=True
    )
    monitor.start()
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "specs": list(specs),
            "parts": ray.put([model.parts(data.source) for model in data.models]),
            "front_end": data.source.front_end,
            "folder": storage / run,
            "progress": progress,
        },
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=options.use_gpu, resources_per_worker={"CPU": worker_cpus, "GPU": gpus}
        ),
        run_config=RunConfig(  # Ray Train keeps nothing in its storage: no checkpoint is reported to it
            name=run,
            storage_path=storage.path,
            storage_filesystem=storage.arrow_filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        return trainer.fit().return_value
    finally:
        progress.put(None)
        monitor.join(timeout=5)
        progress.shutdown()


def _run_name(data: TrainData, specs: Sequence[TrainSpec], options: TrainOptions) -> str:
    """A name that only the same training on the same files has."""
    identity = {
        "mels": data.source.fingerprint,
        "files": [(str(file), content_id(file.filesystem.info(file.path))) for file in data.source.files],
        "models": [
            {
                "tracks": {name: table["track_id"].to_pylist() for name, table in model.tracks.items()},
                "vocabularies": {task: vocabulary.labels for task, vocabulary in model.vocabularies.items()},
                "plan": asdict(spec),
            }
            for model, spec in zip(data.models, specs, strict=True)
        ],
        "calibration": [options.precision, options.unknown_share],
    }
    return run_sha256(identity)[:16]
