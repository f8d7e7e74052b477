"""Train artifact: the model artifact that a training ends with, with its calibration and metrics."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import torch

from mtl_core.dataset.splits import CROSSFIT
from mtl_core.errors import InputError
from mtl_core.evaluation.pages.score_text import out_of_fold_lines
from mtl_core.inference.artifacts import artifact
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.model.cnn import MultitaskCNN, drop_head
from mtl_core.model.recipes import Recipe
from mtl_core.pipelines.training.calibration import calibrate_on_folds, calibrate_on_validation
from mtl_core.pipelines.training.train_data import TrainData, n_segments
from mtl_core.pipelines.training.train_loop import TrainResult
from mtl_core.pipelines.training.train_options import TrainOptions
from mtl_core.storage.location import Location

_PACKAGES = ("torch", "ray", "numpy", "pyarrow")


def make_artifact(
    results: Sequence[TrainResult],
    data: TrainData,
    recipe: Recipe,
    options: TrainOptions,
    run: dict[str, Any],
    out: Location,
) -> tuple[str, dict[str, Any]]:
    """Write the artifact, with what `finished` compares in `run`; returns its `model_id` and its metrics."""
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
        "segments": {name: n_segments(table) for name, table in final.tracks.items()},
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


def summary(results: Sequence[TrainResult], metrics: dict[str, Any]) -> str:
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


def finished(out: Location, run: dict[str, Any]) -> str | None:
    """The `model_id` of the artifact in `out`, if this very training made it."""
    if not (out / artifact.MODEL_FILE).exists():
        return None
    try:
        stored = artifact.load_artifact(out)
    except InputError:  # damaged, or of another version: it is replaced
        return None
    return artifact.model_id(stored) if {key: stored.metrics.get(key) for key in run} == run else None
