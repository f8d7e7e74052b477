"""Predict: an artifact and mels -> the mean embeddings of tracks, and the embeddings of the segments of some.

Only file numbers go through Ray Data, and the mean embeddings of the files' tracks come back; the workers read the mels
themselves, so Ray needs no CPUs for read tasks.

Legend: S segments, T frames, F mel bands, E embedding, N tracks, R rows of a batch.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from mtl_core.audio.sound_level import has_sound
from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.mel_files import iter_segments
from mtl_core.errors import InputError
from mtl_core.evaluation.predictions import Predictions, choose_sample
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.openvino_engine import CpuModel, load_cpu_model
from mtl_core.inference.tagging.heads import mean_embedding
from mtl_core.inference.tagging.segment_grouping import group_by_track
from mtl_core.pipelines.workers import cluster, worker_capacity
from mtl_core.pipelines.workers.progress import Progress
from mtl_core.storage.location import Location

NEW, ALL = "new", "all"
MEAN = -1  # the segment number of a track's mean embedding


def predict(
    artifact: Artifact,
    dataset: MelDataset,
    model: Location,
    mels: Location,
    *,
    on: str,
    seed: int = 0,
    num_workers: int | None = None,
    all_segments: bool = False,
) -> tuple[Predictions, pa.Table]:
    """Run an artifact on labelled tracks of mels.

    Args:
        artifact, dataset: what lies in `model` and in `mels`.
        on: which tracks: one of `splits.SPLIT_NAMES`, `NEW` or `ALL`.
        seed: of the sample of tracks whose segments the predictions have.
        num_workers: worker processes, 1 or more; None: one for each CPU of the cluster.
        all_segments: whether the predictions have the segments of all tracks, however many they are.

    Returns:
        The predictions for the tracks, and the tracks of the training split.

    Raises:
        InputError: the mels are of another front end, or no such track has a label.
    """
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
    n_classes = max(len(vocabulary) for vocabulary in artifact.vocabularies.values())
    chosen = choose_sample(tracks["segments"].to_numpy(), n_classes, seed)
    sample = tracks["track_id"] if all_segments else tracks["track_id"].take(chosen)
    with cluster.connected(num_cpus=num_workers):
        predicted = _predict(
            dataset,
            tracks,
            frozenset(sample.to_pylist()),
            load_cpu_model(model),
            worker_capacity.require_workers(num_workers),
        )
    return predicted, dataset.tracks.filter(pc.equal(split_N, "train"))


def _labelled_in_split(tracks: pa.Table, split_N: pa.Array, tasks: Sequence[str], on: str) -> pa.Table:
    """The tracks of a split that have a label for one of the tasks."""
    if on == NEW:
        tracks = tracks.filter(pc.is_null(split_N))
    elif on != ALL:
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


class EmbedFile:
    """A worker: the number of one of the `files` of mels -> the embeddings of its tracks, a batch for each row group.

    A batch has the columns `track_id`, `segment`, `n_segments` (of the track, with sound) and `embedding` (R, E). A row
    is the mean of a track (`segment` is `MEAN`), nan if no segment has sound, or a segment with sound of the `sample`.

    Args:
        model: what embeds.
        segments: track_id -> the number of its segments, with and without sound. Other tracks are left out.
        sample: the track_ids whose segments are returned.
        files: the files of mels.
    """

    def __init__(
        self, model: CpuModel, segments: Mapping[str, int], sample: frozenset[str], files: Sequence[Location]
    ) -> None:
        self._engine, self._front_end = model.engine(), model.front_end
        self._n_values = next(iter(model.heads.values())).weight_CE.shape[1]
        self._segments, self._sample, self._files = segments, sample, files

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        (number,) = batch["item"].tolist()
        unfinished: dict[str, list[tuple[int, np.ndarray | None]]] = {}  # a track can be in two row groups
        for track_ids, segment_S, mel_STF in iter_segments(self._files[number], self._segments.keys()):
            finished = []
            for track_id, row in zip(track_ids, self._embed(segment_S, mel_STF), strict=True):
                unfinished.setdefault(track_id, []).append(row)
                if len(unfinished[track_id]) == self._segments[track_id]:
                    finished.append(track_id)
            rows = [row for track_id in finished for row in self._rows(track_id, unfinished.pop(track_id))]
            if rows:
                names = ("track_id", "segment", "n_segments", "embedding")
                yield {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}

    def _embed(self, segment_S: np.ndarray, mel_STF: np.ndarray) -> list[tuple[int, np.ndarray | None]]:
        """The number of each segment and its embedding (E,), None for a segment without sound."""
        sounds_S = has_sound(mel_STF, self._front_end.mel, self._front_end.filter_bank)
        embeddings = iter(self._engine.infer(mel_STF[sounds_S]) if sounds_S.any() else ())
        return [(int(n), next(embeddings) if sounds else None) for n, sounds in zip(segment_S, sounds_S, strict=True)]

    def _rows(
        self, track_id: str, segments: list[tuple[int, np.ndarray | None]]
    ) -> list[tuple[str, int, int, np.ndarray]]:
        """The rows of a track of which all segments are embedded."""
        segments = sorted(segments, key=lambda row: row[0])
        counted = [(segment, embedding_E) for segment, embedding_E in segments if embedding_E is not None]
        if not counted:
            return [(track_id, MEAN, 0, np.full(self._n_values, np.nan, np.float32))]
        mean_E = mean_embedding(np.stack([embedding_E for _, embedding_E in counted]))
        rows = [(track_id, MEAN, len(counted), mean_E)]
        if track_id in self._sample:
            rows += [(track_id, segment, len(counted), embedding_E) for segment, embedding_E in counted]
        return rows


def _predict(
    dataset: MelDataset, tracks: pa.Table, sample: frozenset[str], model: CpuModel, workers: int
) -> Predictions:
    """The predictions for tracks, with the segments of those in `sample`."""
    track_ids, n_files = tracks["track_id"].to_pylist(), len(dataset.files)
    segments = dict(zip(track_ids, tracks["segments"].to_pylist(), strict=True))
    batches = (
        ray.data.from_items(list(range(n_files)), override_num_blocks=n_files)
        .map_batches(
            EmbedFile,
            fn_constructor_args=(model, segments, sample, dataset.files),
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
        progress.add(int((batch["segment"] == MEAN).sum()))
    track_R, segment_R, n_R, embedding_RE = (
        np.concatenate([batch[name] for batch in results])
        for name in ("track_id", "segment", "n_segments", "embedding")
    )
    position = {track_id: i for i, track_id in enumerate(track_ids)}
    index_R = np.array([position[track_id] for track_id in track_R], np.int64)
    means = np.flatnonzero(segment_R == MEAN)
    means = means[np.argsort(index_R[means])]
    sounding = means[n_R[means] > 0]
    sample_K = np.flatnonzero([track_id in sample for track_id in track_R[sounding].tolist()])
    of_segment = segment_R != MEAN
    return Predictions(
        tracks=tracks.take(index_R[sounding]),
        without_sound=tracks.take(index_R[means[n_R[means] == 0]]),
        n_segments=n_R[sounding],
        embedding_NE=embedding_RE[sounding],
        sample_K=sample_K,
        segments=group_by_track(
            track_R[sounding][sample_K],
            track_R[of_segment],
            {"embedding": embedding_RE[of_segment]},
            segment_R[of_segment],
        )["embedding"],
        heads=model.heads,
        vocabularies=model.vocabularies,
        aggregation=model.aggregation,
    )
