"""Evaluate: an artifact and mels -> metrics.json, report.html and predictions.parquet.

All follows from the embeddings of tracks (`predict`), as in tagging. A cross-fitted model is reported from what its
training left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset, read_tracks
from mtl_core.dataset.splits import SPLIT_NAMES
from mtl_core.errors import InputError
from mtl_core.evaluation import predictions
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.evaluation.pages import report
from mtl_core.evaluation.pages.task_section import Curves, class_curves
from mtl_core.evaluation.predictions import TrackPrediction
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.predict import ALL, NEW, predict
from mtl_core.storage.checks import as_input_error, check_reachable, check_writable
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes

OUT_OF_FOLD = "out_of_fold"
ALLOWED = (*SPLIT_NAMES, NEW, ALL, OUT_OF_FOLD)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Which tracks are scored, and how."""

    on: str | None = None
    """Tracks to score: train, validation or test, by the model's own splits; new, those outside the splits; all; or
    out_of_fold, what the fold models of a cross-fitted model say of their tracks. By default out_of_fold for a
    cross-fitted model whose tracks the mels hold, new for one whose tracks they do not hold, else test."""
    resamples: int = RESAMPLES
    """Resamples of the bootstrap over songs, >= 0; 0 for no intervals."""
    seed: int = 0
    """Seed of the bootstrap, and of the sample of tracks whose segments are scored, >= 0."""
    num_workers: int | None = None
    """Worker processes; by default one for each CPU of the cluster."""


def evaluate(model: Location, mels: Location, out: Location, options: EvaluationOptions) -> dict[str, Any]:
    """Score an artifact on labelled tracks: of its own splits, new ones, or those kept from its fold models.

    Args:
        model: folder of the artifact.
        mels: folder of mels of the artifact's front end.
        out: folder for `metrics.json`, `report.html` and `predictions.parquet`. The last has one row a track, see
            `predictions.predictions_table`.
        options: what is scored.

    Returns:
        The content of metrics.json: the scores of tracks and of segments by task, baselines, and what was scored.
        `n_segments` and all scores leave out segments without sound. `without_sound` are the tracks that have no other
        segment; no score counts them.

    Raises:
        InputError: a wrong option, or as `predict`.
    """
    if options.resamples < 0 or options.seed < 0:
        raise InputError(f"resamples and seed must be >= 0, got {options.resamples} and {options.seed}")
    if options.num_workers is not None and options.num_workers < 1:
        raise InputError(f"workers must be 1 or more, got {options.num_workers}")
    if options.on is not None and options.on not in ALLOWED:
        raise InputError(f"no tracks {options.on!r} to evaluate on: allowed are {', '.join(ALLOWED)}")
    check_writable(out)
    check_reachable(model)
    artifact, dataset = artifacts.load_artifact(model), open_mel_dataset(mels)
    on = options.on or _default_tracks(artifact, dataset, model)
    if on == OUT_OF_FOLD:
        scores, tracks, table = _out_of_fold(artifact, model)
        curves: Mapping[str, Curves] = {}
    else:
        predicted, training = predict(
            artifact, dataset, model, mels, on=on, seed=options.seed, num_workers=options.num_workers
        )
        tracks = predictions.track_predictions(predicted)
        table = predictions.predictions_table(predicted, tracks)
        silent = predicted.without_sound["track_id"].to_pylist()
        scores = {
            "n_tracks": len(tracks) + len(silent),
            "n_segments": int(predicted.n_segments.sum()),
            "without_sound": silent,
            "tasks": predictions.score_predictions(predicted, training, resamples=options.resamples, seed=options.seed),
        }
        curves = class_curves(predicted, scores["tasks"])
    result = {
        "model_id": artifacts.model_id(artifact),
        "model": str(model),
        "mels": str(mels),
        "on": on,
        "facts": _facts(artifact),
        **scores,
    }
    pictured = [track.track_id for group in report.best_and_worst(tracks) for track in group]
    history = artifact.metrics.get("history", ())
    page = report.render_report(result, tracks, history, curves=curves, mels=read_tracks(mels, pictured))
    with as_input_error(out):
        (out / "predictions.parquet").write_bytes(to_bytes(table))
        (out / "report.html").write_bytes(page.encode())
        (out / "metrics.json").write_json(result)
    return result


def _default_tracks(artifact: Artifact, dataset: MelDataset, model: Location) -> str:
    """What is scored where nothing is said."""
    own = set(artifacts.load_splits(model)["track_id"].to_pylist())
    if artifact.metrics.get("changed"):
        return NEW
    if artifact.out_of_fold is None:
        return "test"
    return OUT_OF_FOLD if own.issuperset(dataset.tracks["track_id"].to_pylist()) else NEW


def _out_of_fold(artifact: Artifact, model: Location) -> tuple[dict[str, Any], Sequence[TrackPrediction], pa.Table]:
    """What the training of a cross-fitted model left: the scores, the songs of known artists, and all rows."""
    table = artifact.out_of_fold
    if table is None:
        raise InputError(f"{model} is not cross-fitted: it has no out-of-fold scores")
    rows = table.filter(pc.and_(table["known"], pc.greater(table["n_segments"], 0)))
    scores = {
        "n_tracks": len(rows),
        "n_segments": int(pc.sum(rows["n_segments"]).as_py() or 0),
        "without_sound": [],
        "tasks": artifact.metrics["out_of_fold"],
    }
    return scores, predictions.out_of_fold_predictions(rows, list(artifact.vocabularies)), table


def _facts(artifact: Artifact) -> dict[str, str]:
    """What the head of the report says of how the model was made."""
    split = artifact.metrics.get("split", {})
    facts = {"split": " ".join(str(split[key]) for key in ("kind", "group_column") if split.get(key))}
    shown = ("fold", "seed") if split.get("kind") == "kfold" else ("seed",)
    facts |= {key: str(split[key]) for key in shown if key in split}
    facts |= {"recipe": str(artifact.recipe.get("name", "")), "aggregation": artifact.aggregation.method}
    return {key: value for key, value in facts.items() if value}
