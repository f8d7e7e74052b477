"""Evaluate: an artifact and mels -> metrics.json, report.html and predictions.parquet.

Files of mels, not their rows, go through Ray Data: a file is a number on its way in and its segments' logits on their
way out. Nothing is read by tasks of Ray's own, so that every logical CPU can hold an actor without a deadlock. Segments
become tracks with the artifact's own aggregation, as in tagging.

Legend: S segments, T frames, F mel bands, C classes, N samples (tracks or segments).
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from mtl_core.dataset.mel_files import MelDataset, iter_segments, open_mel_dataset, read_tracks
from mtl_core.dataset.splits import SPLIT_NAMES
from mtl_core.errors import InputError
from mtl_core.evaluation import metrics, predictions, ranking, report
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference import artifact as artifacts
from mtl_core.inference.artifact import Artifact
from mtl_core.inference.openvino_engine import CpuModel, load_cpu_model
from mtl_core.pipelines.workers import cluster
from mtl_core.pipelines.workers.progress import Progress
from mtl_core.storage.location import Location, as_input_error, check_reachable, check_writable

ALL = "all"


def evaluate(
    *,
    model: Location,
    mels: Location,
    out: Location,
    on: str = "test",
    resamples: int = metrics.RESAMPLES,
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Score an artifact on the labelled tracks of one part of its own splits.

    Args:
        model: folder of the artifact.
        mels: folder of mels of the artifact's front end.
        out: folder for `metrics.json`, `report.html` and `predictions.parquet` (a row a track: true and first labels,
            confidence, and all probabilities in the order of the vocabulary in the schema's metadata).
        on: "train", "validation", "test", or "all" (tracks that the splits do not know, too).
        resamples: of the bootstrap, 0 for no intervals.
        seed: of the bootstrap.
        workers: actors; None: one for each CPU of the cluster.

    Returns:
        What metrics.json holds: by task, `metrics.scores` of tracks and of segments, and baselines; and of what.

    Raises:
        InputError: no such part, no model, no mels or those of another front end, no labelled track in the part.
    """
    if resamples < 0 or seed < 0:
        raise InputError(f"resamples and seed must be >= 0, got {resamples} and {seed}")
    check_writable(out)
    artifact, heard, training = predict(model=model, mels=mels, on=on, workers=workers)
    evaluated = predictions.track_predictions(heard)
    result = {
        "model_id": artifacts.model_id(artifact),
        "model": str(model),
        "mels": str(mels),
        "on": on,
        "n_tracks": len(heard.tracks),
        "n_segments": sum(heard.n_segments),
        "facts": _facts(artifact),
        "tasks": predictions.score_predictions(heard, training, resamples=resamples, seed=seed),
    }
    page = report.render_report(
        result,
        evaluated,
        artifact.metrics.get("history", ()),
        curves={task: ranking.curves(*heard.segment_probabilities(task)) for task in heard.vocabularies},
        mels=read_tracks(mels, [track.track_id for picked in report.best_and_worst(evaluated) for track in picked]),
    )
    with as_input_error(out):
        (out / "predictions.parquet").write_bytes(_parquet(predictions.predictions_table(heard, evaluated)))
        (out / "report.html").write_bytes(page.encode())
        (out / "metrics.json").write_bytes((json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return result


def predict(
    *, model: Location, mels: Location, on: str = "test", workers: int | None = None
) -> tuple[Artifact, Predictions, pa.Table]:
    """Run an artifact on the labelled tracks of one part of its own splits.

    Args:
        model, mels, on, workers: as of `evaluate`.

    Returns:
        The artifact, what it makes of the part's tracks, and the tracks of its training part.

    Raises:
        InputError: no such part, no model, no mels or those of another front end, no labelled track in the part.
    """
    if on not in (*SPLIT_NAMES, ALL):
        raise InputError(f"no part {on!r} to evaluate on: allowed are {', '.join((*SPLIT_NAMES, ALL))}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}")
    check_reachable(model)
    artifact = artifacts.load_artifact(model)
    source = open_mel_dataset(mels)
    if source.front_end.hash() != artifact.front_end.hash():
        differs = _differences(source.front_end.to_dict(), artifact.front_end.to_dict())
        raise InputError(f"{mels} is of another front end than {model}: {differs}")
    parts = _split_of(source, artifacts.load_splits(model))
    tracks = _labelled_in_split(source.tracks, parts, list(artifact.vocabularies), on)
    if not len(tracks):
        tasks = " or ".join(artifact.vocabularies)
        raise InputError(f"{mels}: no track of the part {on!r} of {model} has a label for {tasks}")
    with cluster.connected(num_cpus=workers):
        logits = _logits(source, tracks, load_cpu_model(model), cluster.require_workers(workers))
    heard = Predictions(
        tracks=tracks, logits=logits, vocabularies=artifact.vocabularies, aggregation=artifact.aggregation
    )
    return artifact, heard, source.tracks.filter(pc.equal(pa.array(parts, pa.string()), "train"))


def _split_of(source: MelDataset, splits: pa.Table) -> list[str | None]:
    """The part of each track of the mels, None where the splits do not know it."""
    part_of = dict(zip(splits["track_id"].to_pylist(), splits["split"].to_pylist(), strict=True))
    return [part_of.get(track_id) for track_id in source.tracks["track_id"].to_pylist()]


def _labelled_in_split(tracks: pa.Table, parts: Sequence[str | None], tasks: Sequence[str], on: str) -> pa.Table:
    """The tracks of the part that have a label for one of the tasks."""
    labels = zip(*(tracks[task].to_pylist() for task in tasks), strict=True)
    return tracks.filter(
        pa.array(
            [
                (on in (ALL, part)) and any(label is not None for label in of_track)
                for part, of_track in zip(parts, labels, strict=True)
            ],
            pa.bool_(),
        )
    )


def _differences(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    """Where two front ends differ, in words."""
    texts = []
    for key in sorted(found.keys() | wanted.keys()):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            texts.append(_differences(a, b, f"{prefix}{key}."))
        elif a != b:
            texts.append(f"{prefix}{key} {a}, not {b}")
    return ", ".join(text for text in texts if text)


class _Model:
    """An actor: files of mels -> logits of the picked tracks' segments, a batch for each row group."""

    def __init__(self, network: CpuModel, picked: frozenset[str], files: Sequence[Location]) -> None:
        self._engine, self._picked, self._files = network.engine(), picked, files

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for item in batch["item"]:
            for track_ids, segment_S, mel_STF in iter_segments(self._files[int(item)], self._picked):
                found = {"track_id": np.array(track_ids, object), "segment": segment_S}
                yield found | self._engine.infer(mel_STF)[0]


def _logits(source: MelDataset, tracks: pa.Table, network: CpuModel, workers: int) -> dict[str, list[np.ndarray]]:
    """task -> the (S, C) logits of each of the tracks, its segments in order."""
    ids = tracks["track_id"].to_pylist()
    progress = Progress("evaluating", len(ids))
    batches = (
        ray.data.from_items(list(range(len(source.files))), override_num_blocks=len(source.files))
        .map_batches(
            _Model,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(source.files)), max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(network, frozenset(ids), source.files),
            num_cpus=1,
        )
        .iter_batches(batch_size=None, batch_format="numpy")
    )
    found = []
    for batch in batches:
        found.append(batch)
        progress.add(int((batch["segment"] == 0).sum()), 0)
    columns = {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}
    place = {track_id: i for i, track_id in enumerate(ids)}
    track_S = np.array([place[track_id] for track_id in columns["track_id"]])
    order = np.lexsort((columns["segment"], track_S))
    ends = np.cumsum(np.bincount(track_S, minlength=len(ids)))[:-1]
    tasks = columns.keys() - {"track_id", "segment"}
    return {task: np.split(columns[task][order], ends) for task in tasks}


def _facts(artifact: Artifact) -> dict[str, str]:
    """What of the model's making is worth a place at the head of the report."""
    split = artifact.metrics.get("split", {})
    facts = {"split": " ".join(str(split[key]) for key in ("kind", "group_column") if split.get(key))}
    shown = ("fold", "seed") if split.get("kind") == "kfold" else ("seed",)
    facts |= {key: str(split[key]) for key in shown if key in split}
    facts |= {"recipe": str(artifact.recipe.get("name", "")), "aggregation": artifact.aggregation.method}
    return {key: value for key, value in facts.items() if value}


def _parquet(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return memoryview(sink.getvalue())
