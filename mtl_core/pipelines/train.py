"""Train a model: mels -> data-parallel workers of Ray Train -> an artifact.

Each worker reads its own share of the mels. A training is named by a hash of everything that shapes it. The same
command therefore resumes a training that was interrupted, and recognises one that is finished.
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


def train(
    *,
    mels: Location,
    out: Location,
    tasks: Sequence[str] = TASKS,
    recipe: str = "best",
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
    """Train a model and write its artifact, replacing one that is there; return a summary for people.

    Args:
        mels: folder of mels. Classes are the labels of its training part.
        out: folder of the artifact; the training's state is in its `_train` until then, metrics in `_tensorboard`.
        tasks, drop_heads: of `TASKS`, what is learnt; and the heads that are left out of the artifact.
        recipe, epochs, alpha: name in `RECIPES`, with other epochs and alpha than the recipe's where not None.
        split, fold, group_column: as in `splits.split`.
        num_workers: data-parallel workers, >= 1; must divide the recipe's global batch.
        use_gpu: one GPU a worker.
        seed: of the split and of the training.

    Raises:
        InputError: an argument or the mels are wrong; nothing was done.
        ray.train.TrainingFailedError: workers failed more than `MAX_FAILURES` times.
    """
    numbers = recipe_named(recipe, epochs=epochs, alpha=alpha)
    tasks = [task for task in TASKS if task in tasks] if set(tasks) <= set(TASKS) else list(tasks)
    _check(tasks, drop_heads)
    splits.check_arguments(split, tasks=tasks, folds=[fold], seeds=[seed])
    numbers.check_workers(num_workers)
    check_writable(out)
    data = _read_data(mels, tasks, splits_of={"kind": split, "seed": seed, "fold": fold, "group_column": group_column})
    if data.segments["train"] < num_workers:
        raise InputError(f"{data.segments['train']} training segments are too few for {num_workers} workers")
    model = numbers.model_config({task: len(vocabulary) for task, vocabulary in data.vocabularies.items()})
    spec = TrainSpec(recipe=numbers, model=model, seed=seed, has_validation=data.has_validation)
    name = _run_name(data, spec)
    run = {"run": name, "workers": num_workers, "gpu": use_gpu, "dropped_heads": sorted(drop_heads)}
    if model_id := _finished(out, run):
        return f"nothing to do: {out} holds the model {model_id} of this training"
    with lease.acquire(out):
        with cluster.connected(num_cpus=num_workers):
            result = _fit(data.parts, spec, out, name, num_workers, use_gpu)
        model_id = _save(result, data, spec, {"name": recipe, **asdict(numbers)}, run, out)
        (out / STATE_FOLDER).delete_tree()
    return f"model {model_id}: {_summary(result, data)}\n-> {out}"


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The mels, split and labelled.

    Args:
        source: the mels.
        split: the arguments of `splits.split`.
        assignment: its result, track_id and split.
        tracks: split -> its rows of `source.tracks`, sorted by track_id.
        vocabularies: task -> labels of the training part.
        parts: "train" and "validation".
    """

    source: MelDataset
    split: dict[str, Any]
    assignment: pa.Table
    tracks: dict[str, pa.Table]
    vocabularies: dict[str, Vocabulary]
    parts: dict[str, SplitSegments]

    @property
    def segments(self) -> dict[str, int]:
        """Split -> number of segments."""
        return {name: pc.sum(table["segments"]).as_py() or 0 for name, table in self.tracks.items()}

    @property
    def has_validation(self) -> bool:
        """Whether a validation track has a label of the training part."""
        return any((classes_N != MISSING).any() for classes_N in self.parts["validation"].targets.values())


def _check(tasks: Sequence[str], drop_heads: Sequence[str]) -> None:
    if not tasks or not set(tasks) <= set(TASKS):
        raise InputError(f"tasks must be of {', '.join(TASKS)}, got {', '.join(tasks) or 'none'}")
    if not set(drop_heads) <= set(tasks) or len(set(drop_heads)) == len(tasks):
        raise InputError(
            f"cannot drop the head {', '.join(drop_heads)} of a model of {', '.join(tasks)}: one must stay"
        )


def _read_data(mels: Location, tasks: Sequence[str], *, splits_of: dict[str, Any]) -> _Data:
    """Open, split and label the mels; raises InputError where the training part lacks labels of a task."""
    source = open_mel_dataset(mels)
    assignment = splits.split(source.tracks, **splits_of)
    # Both tables are sorted by track_id.
    tracks = {name: source.tracks.filter(pc.equal(assignment["split"], name)) for name in splits.SPLIT_NAMES}
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
        source=source, split=splits_of, assignment=assignment, tracks=tracks, vocabularies=vocabularies, parts=parts
    )


def _fit(
    parts: dict[str, SplitSegments], spec: TrainSpec, out: Location, run: str, num_workers: int, use_gpu: bool
) -> TrainResult:
    """Run the training loop on the cluster and return the result of its first worker."""
    if use_gpu:
        cluster.require_workers(num_workers, num_cpus=0, num_gpus=1, all_at_once=True)
    worker_cpus = cluster.cpus_per_worker(num_workers, num_gpus=int(use_gpu))
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
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": worker_cpus, "GPU": int(use_gpu)}
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
    result: TrainResult, data: _Data, spec: TrainSpec, recipe: dict[str, Any], run: dict[str, Any], out: Location
) -> str:
    """Write the artifact and return its `model_id`.

    Args:
        result: of the training.
        data: that it was trained on.
        spec: of the training.
        recipe: its name and numbers.
        run: what `_finished` compares, among them the heads to drop.
        out: folder of the artifact.
    """
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
        versions=_versions(),
        recipe=recipe,
    )
    return artifact.save_artifact(trained, data.assignment, out)


def _summary(result: TrainResult, data: _Data) -> str:
    """The best epoch and its scores, for people."""
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


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "ray", "numpy", "pyarrow")}
    return {"python": platform.python_version(), **packages}
