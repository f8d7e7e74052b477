"""Train a model: mels -> data-parallel workers of Ray Train -> an artifact.

Each worker reads its own share of the mels. A training is named by a hash of everything that shapes it. The same
command therefore resumes a training that was interrupted, and recognises one that is finished.
"""

import platform
import threading
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
from mtl_core.dataset.loader import SplitSegments, select_tracks
from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.dataset.vocabulary import MISSING, TASKS, Vocabulary
from mtl_core.errors import InputError
from mtl_core.inference import artifact
from mtl_core.inference.aggregation import Aggregation
from mtl_core.inference.artifact import Artifact
from mtl_core.model.cnn import MultitaskCNN, drop_head
from mtl_core.model.recipes import recipe as recipe_named
from mtl_core.pipelines.training import train_monitor
from mtl_core.pipelines.training.train_loop import TrainResult, TrainSpec, train_worker
from mtl_core.pipelines.workers import cluster
from mtl_core.storage import lease
from mtl_core.storage.checks import as_input_error, check_writable
from mtl_core.storage.location import Location, content_id

MAX_FAILURES = 3  # of workers, each costing at most the epoch it happened in
STATE_FOLDER, STATE_FILE = "_train", "state.pt"
#: Makes torch ask for large pages: activations of 70 MB are allocated anew at each update.
WORKER_ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}
_PACKAGES = ("torch", "ray", "numpy", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a model learns, from which tracks, and how."""

    tasks: tuple[str, ...] = TASKS
    """What to learn: artist, language, or both."""
    recipe: str = "best"
    """The numbers of the training: best (30 epochs), paper (those of Singh & Biswas, 100 epochs) or demo (short)."""
    split: str = "paper"
    """What is held out: paper, kfold, album or artist (with --tasks language only)."""
    fold: int = 0
    """Fold of --split kfold, from 0."""
    group_column: str | None = None
    """Column whose values are never shared by train and test, e.g. album or song; by default that of the split."""
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
    _check_tasks(options)
    splits.check_arguments(options.split, tasks=options.tasks, folds=[options.fold], seeds=[options.seed])
    recipe.check_workers(options.num_workers)
    check_writable(out)
    data = _read_data(mels, options)
    if data.segments["train"] < options.num_workers:
        raise InputError(f"{data.segments['train']} training segments are too few for {options.num_workers} workers")
    model = recipe.model_config({task: len(vocabulary) for task, vocabulary in data.vocabularies.items()})
    spec = TrainSpec(recipe=recipe, model=model, seed=options.seed, has_validation=data.has_validation)
    name = _run_name(data, spec)
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
            result = _fit(data.parts, spec, out, name, options)
        model_id = _save(result, data, spec, options.recipe, run, out)
        (out / STATE_FOLDER).delete_tree()
    return f"model {model_id}: {_summary(result, data)}\n-> {out}"


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The mels, split and labelled."""

    source: MelDataset
    split: dict[str, Any]  # the arguments of `splits.split`
    assignment: pa.Table  # its result
    tracks: dict[str, pa.Table]  # split -> its rows of `source.tracks`, sorted by track_id
    vocabularies: dict[str, Vocabulary]  # task -> labels of the training part
    parts: dict[str, SplitSegments]  # "train" and "validation"

    @property
    def segments(self) -> dict[str, int]:
        """Split -> number of segments."""
        return {name: pc.sum(table["segments"]).as_py() or 0 for name, table in self.tracks.items()}

    @property
    def has_validation(self) -> bool:
        """Whether a validation track has a label of the training part."""
        return any((classes_N != MISSING).any() for classes_N in self.parts["validation"].targets.values())


def _check_tasks(options: TrainOptions) -> None:
    tasks, dropped = set(options.tasks), set(options.drop_head)
    if not tasks or not tasks <= set(TASKS):
        raise InputError(f"tasks must be of {', '.join(TASKS)}, got {', '.join(options.tasks) or 'none'}")
    if not dropped < tasks:
        heads, model = ", ".join(options.drop_head), ", ".join(options.tasks)
        raise InputError(f"cannot drop the head {heads} of a model of {model}: one must stay")


def _read_data(mels: Location, options: TrainOptions) -> _Data:
    """Open, split and label the mels; raises InputError where the training part lacks labels of a task."""
    source = open_mel_dataset(mels)
    split: dict[str, Any] = {
        "kind": options.split,
        "seed": options.seed,
        "fold": options.fold,
        "group_column": options.group_column,
    }
    assignment = splits.split(source.tracks, **split)
    # Both tables are sorted by track_id.
    tracks = {name: source.tracks.filter(pc.equal(assignment["split"], name)) for name in splits.SPLIT_NAMES}
    tasks = [task for task in TASKS if task in options.tasks]
    vocabularies = {task: Vocabulary.of(tracks["train"][task].to_pylist()) for task in tasks}
    for task, vocabulary in vocabularies.items():
        if not len(vocabulary):
            raise InputError(f"{mels}: no track of the training part has a label for {task!r}")
    parts = {
        name: select_tracks(
            source,
            tracks[name]["track_id"],
            {task: vocabulary.encode(tracks[name][task].to_pylist()) for task, vocabulary in vocabularies.items()},
        )
        for name in ("train", "validation")
    }
    return _Data(
        source=source, split=split, assignment=assignment, tracks=tracks, vocabularies=vocabularies, parts=parts
    )


def _fit(
    parts: dict[str, SplitSegments], spec: TrainSpec, out: Location, run: str, options: TrainOptions
) -> TrainResult:
    """Run the training loop on the cluster and return the result of its first worker."""
    workers, gpus = options.num_workers, int(options.use_gpu)
    if gpus:
        cluster.require_workers(workers, num_cpus=0, num_gpus=gpus, all_at_once=True)
    worker_cpus = cluster.cpus_per_worker(workers, num_gpus=gpus)
    storage = out / STATE_FOLDER
    with as_input_error(storage):
        if not storage.on_s3:
            storage.filesystem.makedirs(storage.path, exist_ok=True)
    progress = Queue(actor_options={"num_cpus": 0})
    monitor = threading.Thread(
        target=train_monitor.report_epochs, args=(progress, spec.recipe.epochs, out / "_tensorboard" / run), daemon=True
    )
    monitor.start()
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "spec": spec,
            "parts": ray.put(parts),
            "state_file": storage / run / STATE_FILE,
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
    result: TrainResult, data: _Data, spec: TrainSpec, recipe_name: str, run: dict[str, Any], out: Location
) -> str:
    """Write the artifact, with what `_finished` compares in `run`, and return its `model_id`."""
    model = MultitaskCNN(spec.model)
    model.load_state_dict({name: torch.tensor(array) for name, array in result.weights.items()})
    for task in run["dropped_heads"]:
        model = drop_head(model, task)
    best = result.history[result.best_epoch - 1]
    metrics = {
        "split": data.split,
        "seed": spec.seed,
        "tasks": list(data.vocabularies),
        **run,
        "tracks": {name: len(table) for name, table in data.tracks.items()},
        "segments": data.segments,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "validation_loss": best["validation_loss"],
        "validation": {
            task: {"segments": best["labelled"][task], "top1": top1, "chance": 1 / len(data.vocabularies[task])}
            for task, top1 in best["top1"].items()
            if best["labelled"][task]
        },
        "history": result.history,
    }
    temperature = {task: value for task, value in result.temperature.items() if task in model.config.classes}
    trained = Artifact(
        model=model,
        front_end=data.source.front_end,
        vocabularies={task: data.vocabularies[task] for task in model.config.classes},
        aggregation=Aggregation(temperature=temperature),
        fingerprint=data.source.fingerprint,
        metrics=metrics,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        recipe={"name": recipe_name, **asdict(spec.recipe)},
    )
    return artifact.save_artifact(trained, data.assignment, out)


def _summary(result: TrainResult, data: _Data) -> str:
    best = result.history[result.best_epoch - 1]
    top1 = ", ".join(f"{task} {score:.1%}" for task, score in best["top1"].items())
    training_s = sum(epoch["seconds"] for epoch in result.history)
    return (
        f"epoch {result.best_epoch} of {len(result.history)}, {len(data.tracks['train']):,} training and "
        f"{len(data.tracks['validation']):,} validation tracks, {timedelta(seconds=round(training_s))} of training\n"
        f"validation segments right: {top1 or 'there is no validation part'}"
    )


def _run_name(data: _Data, spec: TrainSpec) -> str:
    """A name that only the same training on the same files has."""
    identity = {
        "mels": data.source.fingerprint,
        "files": [(str(file), content_id(file.filesystem.info(file.path))) for file in data.source.files],
        "tracks": {name: table["track_id"].to_pylist() for name, table in data.tracks.items()},
        "vocabularies": {task: vocabulary.labels for task, vocabulary in data.vocabularies.items()},
        "plan": asdict(spec),
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
