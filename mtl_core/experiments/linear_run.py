"""Linear run: the linear baseline on the tracks of a run, in one process and without a network.

Legend: S segments, V = 288 values of a segment, N tracks.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mtl_core.audio.sound_level import has_sound
from mtl_core.dataset.loader import SplitSegments, select_tracks
from mtl_core.dataset.mel_dataset import MelDataset
from mtl_core.dataset.splits import split
from mtl_core.dataset.vocabulary import Vocabulary, class_labels
from mtl_core.evaluation.baselines import artist_languages
from mtl_core.experiments.run_store import Run, RunResult, class_priors
from mtl_core.experiments.segment_logits import SegmentLogits
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.segment_grouping import group_by_track
from mtl_core.model.embedding_moments import band_moments
from mtl_core.model.linear_baseline import fit_linear
from mtl_core.model.segment_statistics import band_statistics

BATCH = 64
SAMPLE_SEGMENTS = 20_000  # that the shrinkage of the covariance is estimated on


def linear_result(run: Run, mels: MelDataset) -> RunResult:
    """Fit the linear baseline to the training and validation tracks of a run, and predict its test tracks.

    Raises:
        InputError: as `splits.split`.
    """
    assignment = split(mels.tracks, kind=run.split, seed=run.seed, fold=run.fold, group_column=run.group_column)
    is_test_N = pc.equal(assignment["split"], "test")
    training = mels.tracks.filter(pc.invert(is_test_N))
    vocabularies = {task: Vocabulary.of(class_labels(task, training[task].to_pylist())) for task in run.model_tasks}
    targets = {task: vocabulary.encode(training[task].to_pylist()) for task, vocabulary in vocabularies.items()}
    segments = select_tracks(mels, training["track_id"], targets)
    moments = band_moments(
        _batches(segments),
        len(training),
        mels.front_end,
        torch.device("cpu"),
        sample_every=max(1, segments.segments // SAMPLE_SEGMENTS),
    )
    fitted = fit_linear(moments, targets, {task: len(vocabulary) for task, vocabulary in vocabularies.items()})
    return RunResult(
        run=run,
        fingerprint=mels.fingerprint,
        recipe={"name": run.recipe},
        predictions=_predict(mels, mels.tracks.filter(is_test_N), fitted, vocabularies),
        priors=class_priors(vocabularies, training),
        language_of=artist_languages([training]),
        metrics={},
    )


def _predict(
    mels: MelDataset,
    tracks: pa.Table,
    fitted: dict[str, tuple[np.ndarray, np.ndarray]],
    vocabularies: dict[str, Vocabulary],
) -> SegmentLogits:
    """The logits of the segments with sound."""
    values, numbers = [], []
    for batch in _batches(select_tracks(mels, tracks["track_id"], {})):
        sounds_S = torch.from_numpy(has_sound(batch["mel"].numpy(), mels.front_end.mel, mels.front_end.filter_bank))
        values.append(band_statistics(batch["mel"][sounds_S].float().unsqueeze(1)).numpy())
        numbers.append(batch["track"][sounds_S].numpy())
    value_SV, track_S = np.concatenate(values), np.concatenate(numbers)
    with_sound_N = np.unique(track_S)
    grouped = group_by_track(with_sound_N, track_S, {"value": value_SV})["value"]
    heads = {task: Head(*head) for task, head in fitted.items()}
    return SegmentLogits(
        tracks=tracks.take(with_sound_N),
        logits={task: [head.all_logits(value_SV) for value_SV in grouped] for task, head in heads.items()},
        vocabularies=vocabularies,
        aggregation=Aggregation(),
    )


def _batches(segments: SplitSegments) -> Iterator[dict[str, Tensor]]:
    for batch in segments.ordered_batches(BATCH):
        yield {name: torch.from_numpy(array) for name, array in batch.items()}
