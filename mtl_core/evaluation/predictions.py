"""Evaluation: what a model says of labelled tracks, and how good that is, out of the logits of their segments.

Segments become tracks by the aggregation that tagging uses. No I/O; a table of tracks is one row a track, in the order
of the logits. Legend: S segments, C classes, N samples (tracks or segments), A artists.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from mtl_core.dataset.vocabulary import MISSING, Vocabulary
from mtl_core.evaluation import metrics
from mtl_core.inference.aggregation import Aggregation, tag, track_probabilities

SUBSAMPLE_RESAMPLES_SHARE = 5  # the intervals of what is heard come of a fifth of the resamples
_BASELINE_SCORES = ("auc_pr_macro", "auc_roc_macro", "auc_pr_micro", "auc_roc_micro", "top_1", "top_5")


@dataclass(frozen=True, kw_only=True)
class TaskPrediction:
    """What was said of a track in one task.

    Args:
        true: the label it has, None where it has none.
        first: the label of the highest probability.
        confidence: that probability.
        p_true: the probability of the true label; None where there is none or it is no class of the model.
        unknown: whether the confidence is below the threshold.
    """

    true: str | None
    predicted: str
    confidence: float
    true_probability: float | None
    unknown: bool


@dataclass(frozen=True, kw_only=True)
class TrackPrediction:
    """A track and, by task, what was said of it."""

    track_id: str
    n_segments: int
    by_task: Mapping[str, TaskPrediction]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Tracks and what the model makes of their segments.

    Args:
        tracks: a row a track: `track_id`, `artist`, `language` (nullable).
        logits: task -> the (S, C) logits of each track, its segments in order.
        vocabularies: task -> the classes.
        aggregation: of the artifact.
    """

    tracks: pa.Table
    logits: Mapping[str, Sequence[np.ndarray]]
    vocabularies: Mapping[str, Vocabulary]
    aggregation: Aggregation

    @property
    def n_segments(self) -> list[int]:
        """Of each track."""
        return [len(logits_SC) for logits_SC in next(iter(self.logits.values()))]

    def segment_probabilities(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) of all segments, track by track, and (N,) the class index of each."""
        logits_NC = np.concatenate(self.logits[task]).astype(np.float64)
        return softmax(logits_NC / self.aggregation.temperature[task], axis=1), np.repeat(
            self.targets(task), self.n_segments
        )

    def subsample(self, segments: int) -> "Predictions":
        """The same tracks with so many of their segments (>= 1), spread evenly; a shorter track keeps all."""
        kept = [np.unique((np.arange(segments) + 0.5) * n // segments).astype(int) for n in self.n_segments]
        logits = {
            task: [logits_SC[i] for logits_SC, i in zip(of_tracks, kept, strict=True)]
            for task, of_tracks in self.logits.items()
        }
        return replace(self, logits=logits)

    def targets(self, task: str) -> np.ndarray:
        """(N,) class index of each track, `MISSING` where it has no label or one that is no class."""
        return self.vocabularies[task].encode(self.tracks[task].to_pylist())

    def probabilities(self, task: str) -> np.ndarray:
        """(N, C) of the tracks."""
        temperature = self.aggregation.temperature[task]
        return np.stack([track_probabilities(logits_SC, temperature) for logits_SC in self.logits[task]])


def track_predictions(heard: Predictions) -> list[TrackPrediction]:
    """What tagging would say of each track, beside its labels."""
    of_task = {task: _task_predictions(heard, task) for task in heard.vocabularies}
    return [
        TrackPrediction(track_id=track_id, n_segments=n, by_task={task: found[i] for task, found in of_task.items()})
        for i, (track_id, n) in enumerate(zip(heard.tracks["track_id"].to_pylist(), heard.n_segments, strict=True))
    ]


def _task_predictions(heard: Predictions, task: str) -> list[TaskPrediction]:
    found = []
    for p_C, true, target in zip(
        heard.probabilities(task), heard.tracks[task].to_pylist(), heard.targets(task), strict=True
    ):
        tagged = tag(p_C, heard.vocabularies[task], heard.aggregation.threshold[task])
        found.append(
            TaskPrediction(
                true=true,
                predicted=tagged.top[0][0],
                confidence=tagged.confidence,
                true_probability=None if target == MISSING else float(p_C[target]),
                unknown=tagged.label is None,
            )
        )
    return found


def score_predictions(
    heard: Predictions, training: pa.Table, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """By task, as JSON values: `labels`; `order`, in which to show them; `metrics.scores` of `tracks` and `segments`;
    `baselines`: name -> the scores on tracks of what comes for free; and `heard`: the scores on tracks by how many
    `segments` of each are heard.

    Args:
        heard: the tracks to score.
        training: the tracks that the model was trained on, for the baselines; as `Heard.tracks`, may be empty.
        resamples, seed: of the bootstrap over tracks.
    """
    drawn = {"resamples": resamples, "seed": seed}
    ids, n_segments = heard.tracks["track_id"].to_pylist(), heard.n_segments
    found = {}
    for task, vocabulary in heard.vocabularies.items():
        segments_NC, segment_targets_N = heard.segment_probabilities(task)
        songs_N = np.repeat(ids, n_segments)
        found[task] = {
            "labels": list(vocabulary.labels),
            "order": _order(task, vocabulary.labels, [heard.tracks, training]),
            "tracks": metrics.scores(heard.probabilities(task), heard.targets(task), ids, **drawn),
            "segments": metrics.scores(segments_NC, segment_targets_N, songs_N, **drawn),
            "baselines": _baselines(heard, task, training),
            "heard": [
                {
                    "segments": n,
                    **_of_heard(heard.subsample(n), task, ids, resamples // SUBSAMPLE_RESAMPLES_SHARE, seed),
                }
                for n in segment_counts(max(n_segments))
            ],
        }
    return found


def segment_counts(most: int) -> list[int]:
    """Numbers of segments from 1 to `most`: 1, 2, 3, 5, 10, 20, 30, 50, …"""
    steps = [step * 10**power for power in range(len(str(most))) for step in (1, 2, 3, 5)]
    return [*(step for step in steps if step < most), most]


def _of_heard(heard: Predictions, task: str, ids: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    found = metrics.scores(heard.probabilities(task), heard.targets(task), ids, resamples=resamples, seed=seed)
    return {key: found[key] for key in ("auc_pr_macro", "top_1", "ci")}


def _baselines(heard: Predictions, task: str, training: pa.Table) -> dict[str, dict[str, Any]]:
    """The training part's class prior, and the language that goes with the artist."""
    if not len(training):
        return {}
    vocabulary, n_tracks = heard.vocabularies[task], len(heard.tracks)
    prior_C = metrics.class_prior(vocabulary.encode(training[task].to_pylist()), len(vocabulary))
    guesses = {"class prior": np.tile(prior_C, (n_tracks, 1))}
    if task == "language" and "artist" in heard.vocabularies:
        language_of = language_of_artist([training])
        language_A = vocabulary.encode([language_of.get(artist) for artist in heard.vocabularies["artist"].labels])
        artist_NA = heard.probabilities("artist")
        guesses["via artist"] = metrics.language_of_artists(artist_NA, language_A, len(vocabulary))
    found = {name: metrics.scores(p_NC, heard.targets(task), resamples=0) for name, p_NC in guesses.items()}
    return {name: {key: of[key] for key in _BASELINE_SCORES} for name, of in found.items()}


def _order(task: str, labels: Sequence[str], tables: Sequence[pa.Table]) -> list[str]:
    """Labels as people compare them: artists stand by their language."""
    language_of = language_of_artist(tables) if task == "artist" else {}
    return sorted(labels, key=lambda label: (language_of.get(label, ""), label))


def language_of_artist(tables: Sequence[pa.Table]) -> dict[str, str]:
    """Each artist's most frequent language; the first in order of those that tie."""
    pairs: Counter[tuple[str | None, str | None]] = Counter()
    for tracks in tables:
        pairs.update(zip(tracks["artist"].to_pylist(), tracks["language"].to_pylist(), strict=True))
    known = sorted((-n, language, artist) for (artist, language), n in pairs.items() if artist and language)
    return {artist: language for _, language, artist in reversed(known)}


def predictions(heard: Predictions, tracks: Sequence[TrackPrediction]) -> pa.Table:
    """A row a track: `track_id`, `n_segments` and, by task, the true label, `_said`, `_confidence`, `_probabilities`.

    The vocabularies, in whose order the probabilities are, are in the schema's metadata.
    """
    columns: dict[str, Any] = {"track_id": heard.tracks["track_id"], "n_segments": heard.n_segments}
    for task in heard.vocabularies:
        columns[task] = pa.array([track.by_task[task].true for track in tracks], pa.string())
        columns[f"{task}_said"] = [track.by_task[task].predicted for track in tracks]
        columns[f"{task}_confidence"] = [track.by_task[task].confidence for track in tracks]
        columns[f"{task}_probabilities"] = heard.probabilities(task).tolist()
    vocabularies = {task: list(vocabulary.labels) for task, vocabulary in heard.vocabularies.items()}
    return pa.table(columns).replace_schema_metadata({"vocabularies": json.dumps(vocabularies)})
