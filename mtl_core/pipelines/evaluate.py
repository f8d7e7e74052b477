"""Evaluate: an artifact and mels -> metrics.json, report.html and predictions.parquet.

Files of mels, not their rows, go through Ray Data: a file is a number on its way in and its segments' logits on their
way out. Nothing is read by tasks of Ray's own, so that every logical CPU can hold an actor without a deadlock. Segments
become tracks with the artifact's own aggregation, as in tagging.

Legend: S segments, T frames, F mel bands, C classes, N samples (tracks or segments).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
import torch
from scipy.special import softmax

from mtl_core import artifact as artifacts
from mtl_core import metrics, report
from mtl_core.aggregate import tag, track_probabilities
from mtl_core.artifact import Artifact
from mtl_core.failures import InputError
from mtl_core.labels import MISSING
from mtl_core.mels import Mels, open_mels
from mtl_core.pipelines import cluster
from mtl_core.pipelines.progress import Progress
from mtl_core.report import EvaluatedTrack, Said
from mtl_core.splits import PARTS
from mtl_core.storage import Location, at_the_door, check_reachable

ALL = "all"
BATCH_SEGMENTS = 40  # the first block's output takes 2.2 MB each
_BASELINE_SCORES = ("auc_pr_macro", "auc_roc_macro", "auc_pr_micro", "auc_roc_micro", "top_1", "top_5")


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
    if on not in (*PARTS, ALL):
        raise InputError(f"no part {on!r} to evaluate on: allowed are {', '.join((*PARTS, ALL))}")
    if resamples < 0 or seed < 0:
        raise InputError(f"resamples and seed must be >= 0, got {resamples} and {seed}")
    check_reachable(model)
    artifact = artifacts.load(model)
    source = open_mels(mels)
    if source.front_end.hash() != artifact.front_end.hash():
        raise InputError(f"{mels} is of another front end than {model}: {source.front_end}, not {artifact.front_end}")
    check_reachable(out)
    parts = _parts(source, artifacts.load_splits(model))
    tracks = _picked(source.tracks, parts, list(artifact.vocabularies), on)
    if not len(tracks):
        tasks = " or ".join(artifact.vocabularies)
        raise InputError(f"{mels}: no track of the part {on!r} of {model} has a label for {tasks}")
    with cluster.connected(num_cpus=workers):
        logits = _logits(source, tracks, model, workers or cluster.usable_cpus())
    evaluated, scored = _tracks_said(artifact, tracks, logits), {}
    training = source.tracks.filter(pc.equal(pa.array(parts), "train"))
    for task in artifact.vocabularies:
        scored[task] = _scores(artifact, task, tracks, logits, training, resamples, seed)
    result = {
        "model_id": artifacts.model_id(artifact),
        "model": str(model),
        "mels": str(mels),
        "on": on,
        "n_tracks": len(tracks),
        "n_segments": sum(len(next(iter(own.values()))) for own in logits.values()),
        "facts": _facts(artifact),
        "tasks": scored,
    }
    with at_the_door(out):
        (out / "predictions.parquet").write_bytes(_predictions(artifact, evaluated, logits))
        page = report.html(result, evaluated, artifact.metrics.get("history", ()))
        (out / "report.html").write_bytes(page.encode())
        (out / "metrics.json").write_bytes((json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return result


def _parts(source: Mels, splits: pa.Table) -> list[str | None]:
    """The part of each track of the mels, None where the splits do not know it."""
    part_of = dict(zip(splits["track_id"].to_pylist(), splits["split"].to_pylist(), strict=True))
    return [part_of.get(track_id) for track_id in source.tracks["track_id"].to_pylist()]


def _picked(tracks: pa.Table, parts: Sequence[str | None], tasks: Sequence[str], on: str) -> pa.Table:
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


class _Model:
    """An actor: files of mels -> logits of the picked tracks' segments, a batch for each row group."""

    def __init__(self, model: Location, picked: frozenset[str], files: Sequence[Location]) -> None:
        torch.set_num_threads(1)  # an actor is a core
        self._model, self._picked, self._files = artifacts.load(model).model, picked, files

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for item in batch["item"]:
            file = self._files[int(item)]
            with file.filesystem.open(file.path, "rb") as handle:
                parquet = pq.ParquetFile(handle)
                for group in range(parquet.num_row_groups):
                    names = parquet.read_row_group(group, columns=["track_id", "segment"])
                    wanted = np.array([name in self._picked for name in names["track_id"].to_pylist()], bool)
                    if wanted.any():
                        mel = parquet.read_row_group(group, columns=["mel"])["mel"].combine_chunks()
                        kept = names.filter(pa.array(wanted))
                        yield {
                            "track_id": np.array(kept["track_id"].to_pylist(), object),
                            "segment": kept["segment"].to_numpy(),
                            **self._logits(mel.to_numpy_ndarray()[wanted]),
                        }

    def _logits(self, mel_STF: np.ndarray) -> dict[str, np.ndarray]:
        batches = torch.from_numpy(mel_STF.astype(np.float32))[:, None].split(BATCH_SEGMENTS)
        with torch.inference_mode():
            found = [self._model(X_B1TF) for X_B1TF in batches]
        return {task: torch.cat([logits[task] for logits in found]).numpy() for task in found[0]}


def _logits(source: Mels, tracks: pa.Table, model: Location, workers: int) -> dict[str, dict[str, np.ndarray]]:
    """track_id -> task -> (S, C) logits, its segments in order."""
    picked = frozenset(tracks["track_id"].to_pylist())
    progress = Progress("evaluating", len(picked))
    batches = (
        ray.data.from_items(list(range(len(source.files))), override_num_blocks=len(source.files))
        .map_batches(
            _Model,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(source.files)), max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(model, picked, source.files),
            num_cpus=1,
        )
        .iter_batches(batch_size=None, batch_format="numpy")
    )
    rows: dict[str, dict[int, dict[str, np.ndarray]]] = defaultdict(dict)
    for batch in batches:
        tasks = batch.keys() - {"track_id", "segment"}
        for i, (track_id, segment) in enumerate(zip(batch["track_id"], batch["segment"], strict=True)):
            rows[track_id][int(segment)] = {task: batch[task][i] for task in tasks}
        progress.add(int((batch["segment"] == 0).sum()), 0)
    return {
        track_id: {task: np.stack([of[s][task] for s in sorted(of)]) for task in next(iter(of.values()))}
        for track_id, of in sorted(rows.items())
    }


def _tracks_said(
    artifact: Artifact, tracks: pa.Table, logits: Mapping[str, Mapping[str, np.ndarray]]
) -> list[EvaluatedTrack]:
    evaluated = []
    for row in tracks.drop(["segments"]).to_pylist():
        own = logits[row["track_id"]]
        said = {task: _said(artifact, task, own[task], row[task]) for task in artifact.vocabularies}
        n_segments = len(next(iter(own.values())))
        evaluated.append(EvaluatedTrack(track_id=row["track_id"], n_segments=n_segments, said=said))
    return evaluated


def _said(artifact: Artifact, task: str, logits_SC: np.ndarray, true: str | None) -> Said:
    """As tagging does it."""
    vocabulary, aggregation = artifact.vocabularies[task], artifact.aggregation
    p_C = track_probabilities(logits_SC, aggregation.method, aggregation.temperature[task])
    found = tag(p_C, vocabulary, aggregation.threshold[task])
    target = vocabulary.encode([true])[0]
    return Said(
        true=true,
        first=found.top[0][0],
        confidence=found.confidence,
        p_true=None if target == MISSING else float(p_C[target]),
        unknown=found.label is None,
    )


def _scores(
    artifact: Artifact,
    task: str,
    tracks: pa.Table,
    logits: Mapping[str, Mapping[str, np.ndarray]],
    training: pa.Table,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """metrics.json for one task."""
    vocabulary = artifact.vocabularies[task]
    ids, targets_N = tracks["track_id"].to_pylist(), vocabulary.encode(tracks[task].to_pylist())
    p_NC = _probabilities(artifact, task, logits, ids)
    lengths = [len(logits[track_id][task]) for track_id in ids]
    temperature = artifact.aggregation.temperature[task]
    segments_NC = np.concatenate([softmax(logits[track_id][task] / temperature, axis=1) for track_id in ids])
    drawn = {"resamples": resamples, "seed": seed}
    return {
        "labels": list(vocabulary.labels),
        "order": _order(task, vocabulary.labels, pa.concat_tables([tracks, training])),
        "tracks": metrics.scores(p_NC, targets_N, ids, **drawn),
        "segments": metrics.scores(segments_NC, np.repeat(targets_N, lengths), np.repeat(ids, lengths), **drawn),
        "baselines": _baselines(artifact, task, tracks, logits, training),
    }


def _probabilities(artifact: Artifact, task: str, logits: Mapping[str, Any], ids: Sequence[str]) -> np.ndarray:
    aggregation = artifact.aggregation
    temperature = aggregation.temperature[task]
    return np.stack([track_probabilities(logits[i][task], aggregation.method, temperature) for i in ids])


def _baselines(
    artifact: Artifact, task: str, tracks: pa.Table, logits: Mapping[str, Any], training: pa.Table
) -> dict[str, dict[str, Any]]:
    """What comes for free: the training part's class prior, and the language that goes with the said artists."""
    vocabulary, ids = artifact.vocabularies[task], tracks["track_id"].to_pylist()
    targets_N = vocabulary.encode(tracks[task].to_pylist())
    prior_C = metrics.class_prior(vocabulary.encode(training[task].to_pylist()), len(vocabulary))
    guesses = {"class prior": np.tile(prior_C, (len(ids), 1))} if len(training) else {}
    if task == "language" and "artist" in artifact.vocabularies and len(training):
        language_of = _language_of_artist(training)
        language_A = vocabulary.encode([language_of.get(artist) for artist in artifact.vocabularies["artist"].labels])
        artist_NA = _probabilities(artifact, "artist", logits, ids)
        guesses["via artist"] = metrics.language_of_artists(artist_NA, language_A, len(vocabulary))
    found = {name: metrics.scores(p_NC, targets_N, resamples=0) for name, p_NC in guesses.items()}
    return {name: {key: scores[key] for key in _BASELINE_SCORES} for name, scores in found.items()}


def _order(task: str, labels: Sequence[str], tracks: pa.Table) -> list[str]:
    """Labels as people compare them: artists stand by their language."""
    language_of = _language_of_artist(tracks) if task == "artist" else {}
    return sorted(labels, key=lambda label: (language_of.get(label, ""), label))


def _language_of_artist(tracks: pa.Table) -> dict[str, str]:
    """Each artist's most frequent language; the first in order of those that tie."""
    pairs = Counter(zip(tracks["artist"].to_pylist(), tracks["language"].to_pylist(), strict=True))
    known = sorted((-n, language, artist) for (artist, language), n in pairs.items() if artist and language)
    return {artist: language for _, language, artist in reversed(known)}


def _facts(artifact: Artifact) -> dict[str, str]:
    """What of the model's making is worth a place at the head of the report."""
    split = artifact.metrics.get("split", {})
    facts = {"split": " ".join(str(split[key]) for key in ("kind", "group_column") if split.get(key))}
    shown = ("fold", "seed") if split.get("kind") == "kfold" else ("seed",)
    facts |= {key: str(split[key]) for key in shown if key in split}
    facts |= {"recipe": str(artifact.recipe.get("name", "")), "aggregation": artifact.aggregation.method}
    return {key: value for key, value in facts.items() if value}


def _predictions(artifact: Artifact, evaluated: Sequence[EvaluatedTrack], logits: Mapping[str, Any]) -> memoryview:
    ids = [track.track_id for track in evaluated]
    columns: dict[str, Any] = {"track_id": ids, "n_segments": [track.n_segments for track in evaluated]}
    for task in artifact.vocabularies:
        columns[task] = pa.array([track.said[task].true for track in evaluated], pa.string())
        columns[f"{task}_said"] = [track.said[task].first for track in evaluated]
        columns[f"{task}_confidence"] = [track.said[task].confidence for track in evaluated]
        columns[f"{task}_probabilities"] = _probabilities(artifact, task, logits, ids).tolist()
    vocabularies = {task: list(vocabulary.labels) for task, vocabulary in artifact.vocabularies.items()}
    table = pa.table(columns).replace_schema_metadata({"vocabularies": json.dumps(vocabularies)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return memoryview(sink.getvalue())
