"""Predictions: the segment logits of labelled tracks, the track predictions made from them, and their scores.

Segments are pooled into tracks by the same aggregation as in tagging. No I/O. Tables of tracks have one row a track, in
the order of the logits.

Legend: S segments, C classes, N samples (tracks or segments), A artists.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from mtl_core.dataset.vocabulary import MISSING, Vocabulary
from mtl_core.evaluation import baselines, metrics
from mtl_core.evaluation.bootstrap import REDUCED
from mtl_core.inference.aggregation import Aggregation, probabilities, tag


@dataclass(frozen=True, kw_only=True)
class TaskPrediction:
    """The prediction of one task for one track."""

    true: str | None  # the label of the track
    predicted: str  # the most probable label
    confidence: float  # the probability of `predicted`
    true_probability: float | None  # the probability of `true`; None if it is None or not a class
    unknown: bool  # whether the confidence is below the threshold, so that the track would be tagged unknown


@dataclass(frozen=True, kw_only=True)
class TrackPrediction:
    """The predictions for one track, by task."""

    track_id: str
    n_segments: int
    by_task: Mapping[str, TaskPrediction]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Tracks and the logits of their segments."""

    tracks: pa.Table  # a row a track: `track_id`, `artist`, `language` (labels are nullable)
    logits: Mapping[str, Sequence[np.ndarray]]  # task -> the (S, C) logits of each track, its segments in order
    vocabularies: Mapping[str, Vocabulary]  # task -> the classes
    aggregation: Aggregation  # the artifact's way from segments to tracks

    @property
    def n_segments(self) -> list[int]:
        """The number of segments of each track."""
        return [len(logits_SC) for logits_SC in next(iter(self.logits.values()))]

    def targets(self, task: str) -> np.ndarray:
        """(N,) class index of each track; `MISSING` if it has no label or the label is not a class."""
        return self.vocabularies[task].encode(self.tracks[task].to_pylist())

    def probabilities(self, task: str) -> np.ndarray:
        """(N, C) probabilities of the tracks."""
        temperature = self.aggregation.temperature[task]
        return probabilities(
            np.stack([logits_SC.mean(0, dtype=np.float64) for logits_SC in self.logits[task]]), temperature
        )

    def segment_probabilities(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) probabilities of all segments, track by track, and (N,) their class indices."""
        logits_NC = np.concatenate(self.logits[task]).astype(np.float64)
        p_NC = softmax(logits_NC / self.aggregation.temperature[task], axis=1)
        return p_NC, np.repeat(self.targets(task), self.n_segments)

    def subsample(self, segments: int) -> "Predictions":
        """The same tracks with `segments` (>= 1) of their segments, spread evenly. Shorter tracks keep all."""
        indices = [np.unique((np.arange(segments) + 0.5) * n // segments).astype(int) for n in self.n_segments]
        logits = {
            task: [logits_SC[i] for logits_SC, i in zip(task_logits, indices, strict=True)]
            for task, task_logits in self.logits.items()
        }
        return replace(self, logits=logits)


def track_predictions(predictions: Predictions) -> list[TrackPrediction]:
    """What tagging would predict for each track, with its labels."""
    by_task = {task: _task_predictions(predictions, task) for task in predictions.vocabularies}
    track_ids = predictions.tracks["track_id"].to_pylist()
    return [
        TrackPrediction(track_id=track_id, n_segments=n, by_task={task: rows[i] for task, rows in by_task.items()})
        for i, (track_id, n) in enumerate(zip(track_ids, predictions.n_segments, strict=True))
    ]


def _task_predictions(predictions: Predictions, task: str) -> list[TaskPrediction]:
    vocabulary = predictions.vocabularies[task]
    labels, targets = predictions.tracks[task].to_pylist(), predictions.targets(task)
    rows = []
    logits = [logits_SC.mean(0, dtype=np.float64) for logits_SC in predictions.logits[task]]
    p_NC = predictions.probabilities(task)
    for logits_C, p_C, true, target in zip(logits, p_NC, labels, targets, strict=True):
        track_tag = tag(logits_C, task, vocabulary, predictions.aggregation)
        rows.append(
            TaskPrediction(
                true=true,
                predicted=track_tag.top[0][0],
                confidence=track_tag.confidence,
                true_probability=None if target == MISSING else float(p_C[target]),
                unknown=track_tag.label is None,
            )
        )
    return rows


def score_predictions(
    predictions: Predictions, training: pa.Table, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Score every task of a model, as JSON values.

    Args:
        predictions: the tracks to score.
        training: the tracks that the model was trained on, for the baselines; columns as `Predictions.tracks`; can be
            empty.
        resamples, seed: of the bootstrap; 0 resamples for no intervals.

    Returns:
        task -> `labels`: the classes; `order`: the classes in the order in which to show them; `tracks` and `segments`:
        `metrics.scores` of each; `baselines`: name -> scores on tracks without a model of the task; `heard`: scores on
        tracks when only so many `segments` of each are used, with a fifth of the resamples.
    """
    return {task: _score_task(predictions, task, training, resamples, seed) for task in predictions.vocabularies}


def _score_task(predictions: Predictions, task: str, training: pa.Table, resamples: int, seed: int) -> dict[str, Any]:
    track_ids, labels = predictions.tracks["track_id"].to_pylist(), predictions.vocabularies[task].labels
    targets_N, n_segments = predictions.targets(task), predictions.n_segments

    def track_scores(subset: Predictions, resamples: int) -> dict[str, Any]:
        return metrics.scores(subset.probabilities(task), targets_N, track_ids, resamples=resamples, seed=seed)

    by_length = []
    for n in segment_counts(max(n_segments)):
        scores = track_scores(predictions.subsample(n), resamples // REDUCED)
        by_length.append({"segments": n, **{key: scores[key] for key in ("auc_pr_macro", "top_1", "ci")}})
    segment_p_NC, segment_targets_N = predictions.segment_probabilities(task)
    songs_N = np.repeat(track_ids, n_segments)
    return {
        "labels": list(labels),
        "order": _display_order(task, labels, [predictions.tracks, training]),
        "tracks": track_scores(predictions, resamples),
        "segments": metrics.scores(segment_p_NC, segment_targets_N, songs_N, resamples=resamples, seed=seed),
        "baselines": _score_baselines(predictions, task, training),
        "heard": by_length,
    }


def segment_counts(largest: int) -> list[int]:
    """Numbers of segments from 1 to `largest`: 1, 2, 3, 5, 10, 20, 30, 50, …, `largest`."""
    steps = [step * 10**power for power in range(len(str(largest))) for step in (1, 2, 3, 5)]
    return [*(step for step in steps if step < largest), largest]


def _score_baselines(predictions: Predictions, task: str, training: pa.Table) -> dict[str, dict[str, Any]]:
    """Scores of the training tracks' class prior and, for the language, of the artist head's P(artist)."""
    if not len(training):
        return {}
    vocabulary, n_tracks = predictions.vocabularies[task], len(predictions.tracks)
    prior_C = baselines.class_prior(vocabulary.encode(training[task].to_pylist()), len(vocabulary))
    probabilities = {"class prior": np.tile(prior_C, (n_tracks, 1))}
    if task == "language" and "artist" in predictions.vocabularies:
        language_of = baselines.artist_languages([training])
        artists = predictions.vocabularies["artist"].labels
        language_A = vocabulary.encode([language_of.get(artist) for artist in artists])
        probabilities["via artist"] = baselines.language_probabilities(
            predictions.probabilities("artist"), language_A, len(vocabulary)
        )
    targets_N = predictions.targets(task)
    scores = {name: metrics.scores(p_NC, targets_N, resamples=0) for name, p_NC in probabilities.items()}
    return {name: {key: values[key] for key in baselines.CHANCE_KEYS} for name, values in scores.items()}


def _display_order(task: str, labels: Sequence[str], tables: Sequence[pa.Table]) -> list[str]:
    """Languages in alphabetical order; artists by language, then by name."""
    language_of = baselines.artist_languages(tables) if task == "artist" else {}
    return sorted(labels, key=lambda label: (language_of.get(label, ""), label))


def predictions_table(predictions: Predictions, rows: Sequence[TrackPrediction]) -> pa.Table:
    """A row a track: `track_id`, `n_segments` and, for each task, the label TASK, the predicted label TASK_said,
    TASK_confidence and TASK_probabilities.

    The probabilities are in the order of the vocabulary, which is in the schema's metadata.
    """
    columns: dict[str, Any] = {"track_id": predictions.tracks["track_id"], "n_segments": predictions.n_segments}
    for task in predictions.vocabularies:
        columns[task] = pa.array([row.by_task[task].true for row in rows], pa.string())
        columns[f"{task}_said"] = [row.by_task[task].predicted for row in rows]
        columns[f"{task}_confidence"] = [row.by_task[task].confidence for row in rows]
        columns[f"{task}_probabilities"] = predictions.probabilities(task).tolist()
    vocabularies = {task: list(vocabulary.labels) for task, vocabulary in predictions.vocabularies.items()}
    return pa.table(columns).replace_schema_metadata({"vocabularies": json.dumps(vocabularies)})
