"""Evaluate: an artifact and mels -> metrics.json, report.html and predictions.parquet.

Only file numbers go through Ray Data, and the logits of the files' segments come back; the workers read the mels
themselves, so Ray needs no CPUs for read tasks. Segments are pooled to tracks by the artifact's own aggregation, as in
tagging.

Legend: S segments, T frames, F mel bands, C classes, N samples (tracks or segments).
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset, read_tracks
from mtl_core.dataset.mel_files import iter_segments
from mtl_core.dataset.splits import SPLIT_NAMES
from mtl_core.errors import InputError
from mtl_core.evaluation import predictions, ranking, report
from mtl_core.evaluation.bootstrap import RESAMPLES
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference import artifact as artifacts
from mtl_core.inference.artifact import Artifact
from mtl_core.inference.openvino_engine import CpuModel, load_cpu_model
from mtl_core.inference.segment_grouping import group_by_track
from mtl_core.pipelines.workers import cluster
from mtl_core.pipelines.workers.progress import Progress
from mtl_core.storage.checks import as_input_error, check_reachable, check_writable
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Which tracks are scored, and how."""

    on: str = "test"
    """Tracks to score, by the model's own splits: train, validation, test, or all (also tracks outside the splits)."""
    resamples: int = RESAMPLES
    """Resamples of the bootstrap over songs, >= 0; 0 for no intervals."""
    seed: int = 0
    """Seed of the bootstrap, >= 0."""
    num_workers: int | None = None
    """Worker processes; by default one for each CPU of the cluster."""


def evaluate(model: Location, mels: Location, out: Location, options: EvaluationOptions) -> dict[str, Any]:
    """Score an artifact on the labelled tracks of one of its own splits.

    Args:
        model: folder of the artifact.
        mels: folder of mels of the artifact's front end.
        out: folder for `metrics.json`, `report.html` and `predictions.parquet`. The last has one row a track: true and
            predicted labels, confidence, and all probabilities in the order of the vocabulary in the schema's metadata.
        options: what is scored.

    Returns:
        The content of metrics.json: the scores of tracks and of segments by task, baselines, and what was scored.

    Raises:
        InputError: a wrong option, or as `predict`.
    """
    if options.resamples < 0 or options.seed < 0:
        raise InputError(f"resamples and seed must be >= 0, got {options.resamples} and {options.seed}")
    check_writable(out)
    artifact, predicted, training = predict(model, mels, options)
    tracks = predictions.track_predictions(predicted)
    result = {
        "model_id": artifacts.model_id(artifact),
        "model": str(model),
        "mels": str(mels),
        "on": options.on,
        "n_tracks": len(predicted.tracks),
        "n_segments": sum(predicted.n_segments),
        "facts": _facts(artifact),
        "tasks": predictions.score_predictions(predicted, training, resamples=options.resamples, seed=options.seed),
    }
    page = report.render_report(
        result,
        tracks,
        artifact.metrics.get("history", ()),
        curves={task: ranking.curves(*predicted.segment_probabilities(task)) for task in predicted.vocabularies},
        mels=read_tracks(mels, [track.track_id for group in report.best_and_worst(tracks) for track in group]),
    )
    with as_input_error(out):
        (out / "predictions.parquet").write_bytes(to_bytes(predictions.predictions_table(predicted, tracks)))
        (out / "report.html").write_bytes(page.encode())
        (out / "metrics.json").write_json(result)
    return result


def predict(model: Location, mels: Location, options: EvaluationOptions) -> tuple[Artifact, Predictions, pa.Table]:
    """Run an artifact on the labelled tracks of one of its own splits; the arguments are those of `evaluate`.

    Returns:
        The artifact, its predictions for the tracks of the split, and the tracks of its training split.

    Raises:
        InputError: no such split, no model, no mels or those of another front end, no labelled track in the split.
    """
    on, workers = options.on, options.num_workers
    if on not in (*SPLIT_NAMES, ALL):
        raise InputError(f"no split {on!r} to evaluate on: allowed are {', '.join((*SPLIT_NAMES, ALL))}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}")
    check_reachable(model)
    artifact = artifacts.load_artifact(model)
    dataset = open_mel_dataset(mels)
    if dataset.front_end.hash() != artifact.front_end.hash():
        of_mels, of_model = (asdict(of) | {"filter_bank": None} for of in (dataset.front_end, artifact.front_end))
        differences = _differences(of_mels, of_model)
        raise InputError(f"{mels} is of another front end than {model}: {differences}")
    splits = artifacts.load_splits(model)
    split_of = dict(zip(splits["track_id"].to_pylist(), splits["split"].to_pylist(), strict=True))
    split_N = pa.array([split_of.get(track_id) for track_id in dataset.tracks["track_id"].to_pylist()], pa.string())
    tracks = _labelled_in_split(dataset.tracks, split_N, list(artifact.vocabularies), on)
    if not len(tracks):
        tasks = " or ".join(artifact.vocabularies)
        raise InputError(f"{mels}: no track of the split {on!r} of {model} has a label for {tasks}")
    with cluster.connected(num_cpus=workers):
        logits = _logits(dataset, tracks, load_cpu_model(model), cluster.require_workers(workers))
    predicted = Predictions(
        tracks=tracks, logits=logits, vocabularies=artifact.vocabularies, aggregation=artifact.aggregation
    )
    return artifact, predicted, dataset.tracks.filter(pc.equal(split_N, "train"))


def _labelled_in_split(tracks: pa.Table, split_N: pa.Array, tasks: Sequence[str], on: str) -> pa.Table:
    """The tracks of a split that have a label for one of the tasks."""
    if on != ALL:
        tracks = tracks.filter(pc.equal(split_N, on))
    return tracks.filter(functools.reduce(pc.or_, [pc.is_valid(tracks[task]) for task in tasks]))


def _differences(mels: dict[str, Any], model: dict[str, Any], prefix: str = "") -> str:
    """Where two front ends differ, in words."""
    texts = []
    for key in sorted(mels.keys() | model.keys()):
        a, b = mels.get(key), model.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            texts.append(_differences(a, b, f"{prefix}{key}."))
        elif a != b and None not in (a, b):  # None: it belongs to the other sampling
            texts.append(f"{prefix}{key} {a}, not {b}")
    return ", ".join(text for text in texts if text)


class PredictFile:
    """A worker: the number of one of the `files` of mels -> the logits of its tracks, a batch for each row group.

    Tracks that are not among `track_ids` are left out.
    """

    def __init__(self, model: CpuModel, track_ids: frozenset[str], files: Sequence[Location]) -> None:
        self._engine, self._heads, self._track_ids, self._files = model.engine(), model.heads, track_ids, files

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        (number,) = batch["item"].tolist()
        for track_ids, segment_S, mel_STF in iter_segments(self._files[number], self._track_ids):
            columns = {"track_id": np.array(track_ids, object), "segment": segment_S}
            embedding_SE = self._engine.infer(mel_STF)
            yield columns | {task: head.all_logits(embedding_SE) for task, head in self._heads.items()}


def _logits(dataset: MelDataset, tracks: pa.Table, model: CpuModel, workers: int) -> dict[str, list[np.ndarray]]:
    """task -> the (S, C) logits of each of the tracks, its segments in order."""
    track_ids = tracks["track_id"].to_pylist()
    n_files = len(dataset.files)
    batches = (
        ray.data.from_items(list(range(n_files)), override_num_blocks=n_files)
        .map_batches(
            PredictFile,
            fn_constructor_args=(model, frozenset(track_ids), dataset.files),
            batch_size=1,
            num_cpus=1,
            compute=cluster.actor_pool(workers, n_files),
        )
        .iter_batches(batch_size=None, batch_format="numpy")
    )
    progress = Progress("evaluating", len(track_ids))
    results = []
    for batch in batches:
        results.append(batch)
        progress.add(int((batch["segment"] == 0).sum()))
    columns = {name: np.concatenate([batch[name] for batch in results]) for name in results[0]}
    track_S, segment_S = columns.pop("track_id"), columns.pop("segment")
    return group_by_track(track_ids, track_S, columns, segment_S)


def _facts(artifact: Artifact) -> dict[str, str]:
    """What the head of the report says of how the model was made."""
    split = artifact.metrics.get("split", {})
    facts = {"split": " ".join(str(split[key]) for key in ("kind", "group_column") if split.get(key))}
    shown = ("fold", "seed") if split.get("kind") == "kfold" else ("seed",)
    facts |= {key: str(split[key]) for key in shown if key in split}
    facts |= {"recipe": str(artifact.recipe.get("name", "")), "aggregation": artifact.aggregation.method}
    return {key: value for key, value in facts.items() if value}
