"""Train models: mels -> data-parallel workers of Ray Train -> an artifact.

Each worker reads its own share of the mels. All models of a command train in one group of workers, one after the other.
A training is named by a hash of everything that shapes it. The same command therefore resumes a training that was
interrupted, model by model, and recognises one that is finished.
"""

import platform
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from mtl_core.canonical import run_sha256
from mtl_core.dataset import splits
from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.dataset.splits import CROSSFIT, NONE
from mtl_core.dataset.vocabulary import MISSING, TASKS
from mtl_core.errors import InputError
from mtl_core.evaluation.pages.score_text import out_of_fold_lines
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.model.cnn import MultitaskCNN, drop_head
from mtl_core.model.recipes import Recipe
from mtl_core.model.recipes import recipe as recipe_named
from mtl_core.pipelines.training import train_monitor
from mtl_core.pipelines.training.calibration import calibrate_on_folds, calibrate_on_validation
from mtl_core.pipelines.training.train_data import ModelData, split_models
from mtl_core.pipelines.training.train_loop import TrainResult, TrainSpec, train_worker
from mtl_core.pipelines.workers import cluster, worker_capacity
from mtl_core.storage import lease
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location, content_id

MAX_FAILURES = 3  # of workers, each costing at most the epoch it happened in
STATE_FOLDER = "_train"
#: Makes torch ask for large pages: activations of 70 MB are allocated anew at each update.
WORKER_ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}
_PACKAGES = ("torch", "ray", "numpy", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a model learns, from which tracks, and how."""

    tasks: tuple[str, ...] = TASKS
    """What to learn: artist, language, or both."""
    recipe: str = "best"
    """The numbers of the training: best (10 epochs), paper (those of Singh & Biswas, 100 epochs) or demo (short)."""
    split: str = CROSSFIT
    """crossfit: a model for each fold, then the final model on all tracks, calibrated on what the fold models say of
    tracks that they did not train on. none: the final model alone, not calibrated. paper, kfold, album or artist (with
    --tasks language only) hold tracks out for `evaluate`."""
    folds: int = 5
    """Folds of --split crossfit, 2 to the number of artists."""
    fold: int = 0
    """Fold of --split kfold, from 0."""
    group_column: str | None = None
    """Column whose values are never shared by train and test, e.g. album or song; by default that of the split."""
    precision: float = 0.95
    """Share of the names that shall be right, above 0 and below 1: a track gets no name where its score is below the
    threshold at which this was reached on the tracks of --split crossfit."""
    unknown_share: float = 0.5
    """Share of tracks of unknown artists in the catalogue that will be tagged, 0 to 1; --precision is meant for it."""
    epochs: int | None = None
    """Passes over the training part, >= 1; by default the recipe's."""
    alpha: float | None = None
    """Weight of the language loss beside the artist loss, >= 0; by default the recipe's."""
    num_workers: int = 1
    """Data-parallel workers, >= 1; must divide the recipe's global batch: 32 of paper and best, 16 of demo."""
    use_gpu: bool = False
    """One GPU for each worker."""
    drop_head: tuple[str, ...] = ()
    """Tasks whose heads are trained but left out of the artifact, e.g. language."""
    seed: int = 0
    """Seed of the split and of the training, >= 0."""


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
    _check_options(options, recipe)
    check_writable(out)
    data = _read_data(mels, options, recipe)
    n_segments = [_n_segments(model.tracks["train"]) for model in data.models]
    if min(n_segments) < 2 * options.num_workers:
        raise InputError(f"{min(n_segments)} training segments are too few: a worker needs 2 or more")
    specs = [_spec(model, recipe, options.seed) for model in data.models]
    name = _run_name(data, specs, options)
    run = {
        "run": name,
        "workers": options.num_workers,
        "gpu": options.use_gpu,
        "dropped_heads": sorted(options.drop_head),
    }
    if model_id := _finished(out, run):
        return f"nothing to do: {out} holds the model {model_id} of this training"
    with lease.acquire(out):
        with cluster.connected(num_cpus=options.num_workers):
            results = _fit(data, specs, out, name, options)
        model_id, metrics = _save(results, data, recipe, options, run, out)
        (out / STATE_FOLDER).delete_tree()
    return f"model {model_id}: {_summary(results, metrics)}\n-> {out}"


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The mels, and the models that they train."""

    source: MelDataset
    split: dict[str, Any]  # the arguments of the split, as JSON values
    assignment: pa.Table  # the splits of the final model
    models: list[ModelData]  # the final one last

    @property
    def final(self) -> ModelData:
        return self.models[-1]


def _check_options(options: TrainOptions, recipe: Recipe) -> None:
    tasks, dropped = set(options.tasks), set(options.drop_head)
    if not tasks or not tasks <= set(TASKS):
        raise InputError(f"tasks must be of {', '.join(TASKS)}, got {', '.join(options.tasks) or 'none'}")
    if not dropped < tasks:
        heads, model = ", ".join(options.drop_head), ", ".join(options.tasks)
        raise InputError(f"cannot drop the head {heads} of a model of {model}: one must stay")
    if not 0 < options.precision < 1:
        raise InputError(f"precision must be above 0 and below 1, got {options.precision:g}")
    if not 0 <= options.unknown_share <= 1:
        raise InputError(f"unknown-share must be 0 to 1, got {options.unknown_share:g}")
    splits.check_arguments(options.split, tasks=options.tasks, folds=[options.fold], seeds=[options.seed])
    recipe.check_workers(options.num_workers)


def _read_data(mels: Location, options: TrainOptions, recipe: Recipe) -> _Data:
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
    return _Data(source=source, split=split, assignment=assignment, models=models)


def _spec(model: ModelData, recipe: Recipe, seed: int) -> TrainSpec:
    validation = model.tracks["validation"]
    has_labels = any(
        (vocabulary.encode(validation[task].to_pylist()) != MISSING).any()
        for task, vocabulary in model.vocabularies.items()
    )
    config = recipe.model_config({task: len(vocabulary) for task, vocabulary in model.vocabularies.items()})
    return TrainSpec(name=model.name, recipe=recipe, model=config, seed=seed, chooses_epoch=has_labels)


def _n_segments(tracks: pa.Table) -> int:
    return int(pc.sum(tracks["segments"]).as_py() or 0)


def _fit(data: _Data, specs: Sequence[TrainSpec], out: Location, run: str, options: TrainOptions) -> list[TrainResult]:
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


def _save(
    results: Sequence[TrainResult],
    data: _Data,
    recipe: Recipe,
    options: TrainOptions,
    run: dict[str, Any],
    out: Location,
) -> tuple[str, dict[str, Any]]:
    """Write the artifact, with what `_finished` compares in `run`; returns its `model_id` and its metrics."""
    result, final = results[-1], data.final
    model = MultitaskCNN(result.model)
    model.load_state_dict({name: torch.tensor(array) for name, array in result.weights.items()})
    for task in run["dropped_heads"]:
        model = drop_head(model, task)
    tasks = list(model.config.classes)
    vocabularies = {task: final.vocabularies[task] for task in tasks}
    if options.split == CROSSFIT:
        calibration = calibrate_on_folds(
            results[:-1],
            data.models[:-1],
            vocabularies,
            precision=options.precision,
            unknown_share=options.unknown_share,
            seed=options.seed,
        )
    else:
        calibration = calibrate_on_validation(result, final, tasks)
    best = result.history[result.best_epoch - 1]
    metrics = {
        "split": data.split,
        "seed": options.seed,
        "tasks": list(final.vocabularies),
        "precision": options.precision,
        "unknown_share": options.unknown_share,
        **run,
        "tracks": {name: len(table) for name, table in final.tracks.items()},
        "segments": {name: _n_segments(table) for name, table in final.tracks.items()},
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "validation_loss": best["validation_loss"],
        "validation": {
            task: {"segments": best["labelled"][task], "top1": top1, "chance": 1 / len(final.vocabularies[task])}
            for task, top1 in best["top1"].items()
            if best["labelled"][task]
        },
        "history": result.history,
        "out_of_fold": calibration.scores,
        "early_exit": calibration.early_exit,
    }
    trained = Artifact(
        model=model,
        front_end=data.source.front_end,
        vocabularies=vocabularies,
        aggregation=calibration.aggregation,
        fingerprint=data.source.fingerprint,
        metrics=metrics,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        recipe={"name": options.recipe, **asdict(recipe)},
        out_of_fold=calibration.rows,
    )
    model_id = artifact.save_artifact(trained, data.assignment, out)
    return model_id, metrics


def _summary(results: Sequence[TrainResult], metrics: dict[str, Any]) -> str:
    tracks = metrics["tracks"]
    training_s = sum(epoch["seconds"] for one in results for epoch in one.history)
    lines = [
        f"epoch {metrics['best_epoch']} of {metrics['epochs']}, {tracks['train']:,} training and "
        f"{tracks['validation']:,} validation tracks, {timedelta(seconds=round(training_s))} of training"
    ]
    if metrics["out_of_fold"]:
        return "\n".join(lines + out_of_fold_lines(metrics))
    top1 = ", ".join(f"{task} {score['top1']:.1%}" for task, score in metrics["validation"].items())
    return "\n".join([*lines, f"validation segments right: {top1 or 'there is no validation part'}"])


def _run_name(data: _Data, specs: Sequence[TrainSpec], options: TrainOptions) -> str:
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


def _finished(out: Location, run: dict[str, Any]) -> str | None:
    """The `model_id` of the artifact in `out`, if this very training made it."""
    if not (out / artifact.MODEL_FILE).exists():
        return None
    try:
        stored = artifact.load_artifact(out)
    except InputError:  # damaged, or of another version: it is replaced
        return None
    return artifact.model_id(stored) if {key: stored.metrics.get(key) for key in run} == run else None
