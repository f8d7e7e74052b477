"""Predictions: the mean embeddings of labelled tracks, what tagging says of them, and their scores.

A track's tag is computed from its mean embedding by the functions of tagging. A track without any segment with sound
has no embedding; it is listed, and no score counts it. Segments are scored where their embeddings are given: for all
tracks, or for a sample of whole tracks. No I/O.

Legend: S segments, C classes, N samples (tracks or segments), K tracks of the sample, E embedding, A artists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mtl_core.dataset.vocabulary import MISSING, Vocabulary
from mtl_core.evaluation import baselines, metrics
from mtl_core.evaluation.bootstrap import REDUCED
from mtl_core.evaluation.class_scores import ClassScores, head_scores, row_blocks
from mtl_core.inference.tagging.aggregation import Aggregation, tag_embedding, top_entries
from mtl_core.inference.tagging.heads import Head, mean_embedding
from mtl_core.inference.tagging.softmax import probabilities
from mtl_core.schema import TAGS

#: Above these, segments are scored on a sample of tracks: segments, and segments x classes.
SEGMENTS, SEGMENT_VALUES = 50_000, 200_000_000


@dataclass(frozen=True, kw_only=True)
class TaskPrediction:
    """The prediction of one task for one track."""

    true: str | None  # the label of the track
    predicted: str  # the most probable label
    confidence: float  # the probability of `predicted`
    true_probability: float | None  # the probability of `true`; None if it is None or not a class
    unknown: bool  # whether the tag is null
    top: Sequence[tuple[str, float]] = ()  # as `aggregation.Tag.top`


@dataclass(frozen=True, kw_only=True)
class TrackPrediction:
    """The predictions for one track, by task."""

    track_id: str
    n_segments: int
    by_task: Mapping[str, TaskPrediction]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Tracks, the mean embeddings of those with sound, and the segments' embeddings of some."""

    tracks: pa.Table  # a row a track with sound: `track_id`, `artist`, `language` (labels are nullable)
    without_sound: pa.Table  # the same columns of the tracks without any segment with sound
    n_segments: np.ndarray  # (N,) segments with sound of each of `tracks`, 1 or more
    embedding_NE: np.ndarray  # (N, E) float32, the mean embedding of each of `tracks`
    sample_K: np.ndarray  # (K,) positions in `tracks` of those whose segments are given, rising
    segments: Sequence[np.ndarray]  # the embeddings (S, E) of the segments with sound of each of the K tracks
    heads: Mapping[str, Head]  # task -> its head
    vocabularies: Mapping[str, Vocabulary]  # task -> the classes
    aggregation: Aggregation  # the artifact's way from a head's output to a tag

    def targets(self, task: str) -> np.ndarray:
        """(N,) class index of each track; `MISSING` if it has no label or the label is not a class."""
        return self.vocabularies[task].encode(self.tracks[task].to_pylist())

    def scores(self, task: str, embedding_NE: np.ndarray | None = None) -> ClassScores:
        """The probabilities of the tracks, or of other embeddings."""
        embedding_NE = self.embedding_NE if embedding_NE is None else embedding_NE
        return head_scores(embedding_NE, self.heads[task], self.aggregation.temperature[task])

    def segment_scores(self, task: str) -> tuple[ClassScores, np.ndarray]:
        """The probabilities of the segments of the K tracks, track by track, and (N,) their class indices."""
        targets_N = np.repeat(self.targets(task)[self.sample_K], [len(x) for x in self.segments])
        return self.scores(task, _concatenate(self.segments, self.embedding_NE)), targets_N

    def shortened(self, segments: int) -> np.ndarray:
        """(K, E) mean embeddings over `segments` (>= 1) segments of each track, spread evenly, or all it has."""
        indices = [np.unique((np.arange(segments) + 0.5) * len(x) // segments).astype(int) for x in self.segments]
        means = [mean_embedding(x[i]) for x, i in zip(self.segments, indices, strict=True)]
        return np.stack(means) if means else self.embedding_NE[:0]


def _concatenate(arrays: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.concatenate([like[:0], *arrays])


def choose_sample(n_segments_N: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Positions of the tracks whose segments are scored, rising: all, or a random sample of whole tracks.

    Args:
        n_segments_N: (N,) segments of each track.
        n_classes: of the largest task.
        seed: of the sample.
    """
    limit = min(SEGMENTS, SEGMENT_VALUES // n_classes)
    order = np.arange(len(n_segments_N))
    if n_segments_N.sum() > limit:
        order = np.random.default_rng(seed).permutation(order)
        order = order[: max(1, int((n_segments_N[order].cumsum() <= limit).sum()))]
    return np.sort(order)


def track_predictions(predictions: Predictions) -> list[TrackPrediction]:
    """What tagging says of each track with sound, with its labels."""
    by_task = {task: _task_predictions(predictions, task) for task in predictions.vocabularies}
    track_ids = predictions.tracks["track_id"].to_pylist()
    return [
        TrackPrediction(track_id=track_id, n_segments=int(n), by_task={task: rows[i] for task, rows in by_task.items()})
        for i, (track_id, n) in enumerate(zip(track_ids, predictions.n_segments, strict=True))
    ]


def _task_predictions(predictions: Predictions, task: str) -> list[TaskPrediction]:
    vocabulary, head, aggregation = predictions.vocabularies[task], predictions.heads[task], predictions.aggregation
    labels, targets = predictions.tracks[task].to_pylist(), predictions.targets(task)
    rows = []
    for embedding_E, true, target in zip(predictions.embedding_NE, labels, targets, strict=True):
        logits_C = head.logits(embedding_E)
        track_tag = tag_embedding(embedding_E, head, task, vocabulary, aggregation)
        p_C = probabilities(logits_C, aggregation.temperature[task])
        rows.append(
            TaskPrediction(
                true=true,
                predicted=track_tag.top[0][0],
                confidence=track_tag.confidence,
                true_probability=None if target == MISSING else float(p_C[target]),
                unknown=track_tag.label is None,
                top=track_tag.top,
            )
        )
    return rows


def out_of_fold_predictions(rows: pa.Table, tasks: Sequence[str]) -> list[TrackPrediction]:
    """What fold models say of tracks with sound, from rows of `schema.OUT_OF_FOLD`."""
    return [
        TrackPrediction(
            track_id=row["track_id"],
            n_segments=row["n_segments"],
            by_task={
                task: TaskPrediction(
                    true=row[task],
                    predicted=row[f"{task}_top"][0]["label"],
                    confidence=row[f"{task}_top"][0]["probability"],
                    true_probability=row[f"{task}_true_probability"],
                    unknown=row[f"{task}_tag"] is None,
                    top=[(entry["label"], entry["probability"]) for entry in row[f"{task}_top"]],
                )
                for task in tasks
            },
        )
        for row in rows.to_pylist()
    ]


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
        tracks when only so many `segments` of each are used, with a fifth of the resamples; `sampled`: which of
        `segments` and `heard` are of a sample -> the sample, in words.
    """
    return {task: _score_task(predictions, task, training, resamples, seed) for task in predictions.vocabularies}


def _score_task(predictions: Predictions, task: str, training: pa.Table, resamples: int, seed: int) -> dict[str, Any]:
    labels, targets_N = predictions.vocabularies[task].labels, predictions.targets(task)
    songs_N, sample_K = np.array(predictions.tracks["track_id"].to_pylist(), str), predictions.sample_K
    n_segments = [len(x) for x in predictions.segments]
    by_length = []
    for n in segment_counts(max(n_segments, default=0)):
        shortened = predictions.scores(task, predictions.shortened(n))
        scores = metrics.scores(
            shortened, targets_N[sample_K], songs_N[sample_K], resamples=resamples // REDUCED, seed=seed
        )
        by_length.append({"segments": n, **{key: scores[key] for key in ("auc_pr_macro", "top_1", "ci")}})
    segment_songs_N = np.repeat(songs_N[sample_K], n_segments)
    sample = f"{len(sample_K):,} random tracks of {len(songs_N):,}, with all their segments"
    return {
        "labels": list(labels),
        "order": _display_order(task, labels, [predictions.tracks, training]),
        "tracks": metrics.scores(predictions.scores(task), targets_N, songs_N, resamples=resamples, seed=seed),
        "segments": metrics.scores(*predictions.segment_scores(task), segment_songs_N, resamples=resamples, seed=seed),
        "baselines": _score_baselines(predictions, task, training),
        "heard": by_length,
        "sampled": dict.fromkeys(("segments", "heard"), sample) if len(sample_K) < len(songs_N) else {},
    }


def segment_counts(largest: int) -> list[int]:
    """Numbers of segments from 1 to `largest`: 1, 2, 3, 5, 10, 20, 30, 50, …, `largest`; none up to 0."""
    steps = [step * 10**power for power in range(len(str(largest))) for step in (1, 2, 3, 5)]
    return [*(step for step in steps if step < largest), largest] if largest else []


def _score_baselines(predictions: Predictions, task: str, training: pa.Table) -> dict[str, dict[str, Any]]:
    """Scores of the training tracks' class prior and, for the language, of the artist head's P(artist)."""
    if not len(training):
        return {}
    vocabulary, targets_N = predictions.vocabularies[task], predictions.targets(task)
    prior_C = baselines.class_prior(vocabulary.encode(training[task].to_pylist()), len(vocabulary))
    scores = {"class prior": baselines.constant_scores(prior_C, targets_N)}
    if task == "language" and "artist" in predictions.vocabularies:
        language_of = baselines.artist_languages([training])
        artists = predictions.vocabularies["artist"].labels
        language_A = vocabulary.encode([language_of.get(artist) for artist in artists])
        p_NA = predictions.scores("artist")
        p_NL = [
            baselines.language_probabilities(p_NA.rows(first, end), language_A, len(vocabulary))
            for first, end in row_blocks(*p_NA.shape)
        ]
        via_artist = metrics.scores(np.concatenate([np.empty((0, len(vocabulary))), *p_NL]), targets_N, resamples=0)
        scores["via artist"] = {key: via_artist[key] for key in baselines.CHANCE_KEYS}
    return scores


def _display_order(task: str, labels: Sequence[str], tables: Sequence[pa.Table]) -> list[str]:
    """Languages in alphabetical order; artists by language, then by name."""
    language_of = baselines.artist_languages(tables) if task == "artist" else {}
    return sorted(labels, key=lambda label: (language_of.get(label, ""), label))


def predictions_table(predictions: Predictions, rows: Sequence[TrackPrediction]) -> pa.Table:
    """A row a track, by track_id: `track_id`, `n_segments` (with sound), `embedding` and, for each task, the label
    TASK, the tag TASK_tag (null: unknown), the most probable label TASK_predicted, TASK_confidence, TASK_top and
    TASK_true_probability (null: no class).

    The rows of tracks without sound are null but for the label, and their top lists are empty.
    """
    parts, silent = [], predictions.without_sound
    for tracks, table_rows in ((predictions.tracks, rows), (silent, [None] * len(silent))):
        columns: dict[str, Any] = {
            "track_id": tracks["track_id"].cast(pa.string()),
            "n_segments": pa.array([row.n_segments if row else 0 for row in table_rows], pa.int32()),
            "embedding": pa.array(
                list(predictions.embedding_NE) if tracks is predictions.tracks else [None] * len(silent),
                TAGS.field("embedding").type,
            ),
        }
        for task in predictions.vocabularies:
            by_track = [row.by_task[task] if row else None for row in table_rows]
            tops = [top_entries(row.top) if row else [] for row in by_track]
            columns |= {
                task: tracks[task].cast(pa.string()),
                f"{task}_tag": pa.array(
                    [row.predicted if row and not row.unknown else None for row in by_track], pa.string()
                ),
                f"{task}_predicted": pa.array([row and row.predicted for row in by_track], pa.string()),
                f"{task}_confidence": pa.array([row and row.confidence for row in by_track], pa.float32()),
                f"{task}_top": pa.array(tops, TAGS.field("artist_top").type),
                f"{task}_true_probability": pa.array([row and row.true_probability for row in by_track], pa.float32()),
            }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts).sort_by("track_id")
