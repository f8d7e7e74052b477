"""Out of fold: what fold models say of tracks that they did not train on, and the calibration that follows.

Each track is scored once as a known artist's new song, and once as a song of an unknown artist (`dataset.crossfit`).
The temperature of each task, the score that tells unknown artists and its threshold come from these rows; the final
model takes them over.

Legend: N tracks, C classes, E embedding (96).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import mannwhitneyu

from mtl_core.dataset.vocabulary import MISSING, Vocabulary
from mtl_core.inference.calibration.temperature import fit_temperature
from mtl_core.inference.tagging.aggregation import Aggregation, Tag, tag_embedding, top_entries
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.softmax import probabilities, softmax_terms
from mtl_core.inference.tagging.unknown import SCORES, choose_threshold, unknown_score
from mtl_core.schema import OUT_OF_FOLD

TEMPERATURE_TRACKS = 5_000  # of each fold that a temperature is fitted on, drawn at random where there are more
_BLOCK_VALUES = 20_000_000  # logits in memory at once


@dataclass(frozen=True, kw_only=True)
class FoldScores:
    """What a fold model says of the tracks that were kept from it."""

    fold: int
    tracks: pa.Table  # (N) rows: track_id, artist, language (labels are nullable)
    known_N: np.ndarray  # whether the model trained on other songs of the track's artist
    embedding_NE: np.ndarray  # float32; nan where no segment has sound
    segments_N: np.ndarray  # the number of segments with sound
    heads: Mapping[str, Head]
    vocabularies: Mapping[str, Vocabulary]
    read_N: np.ndarray  # the number of segments, with and without sound
    #: number of segments that were read -> the embedding (N, E) they give, and how many of them have sound (N,)
    rounds: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def select(self, kept_N: np.ndarray) -> "FoldScores":
        """The same of some of the tracks."""
        arrays = {name: getattr(self, name)[kept_N] for name in ("known_N", "embedding_NE", "segments_N", "read_N")}
        rounds = {end: (embedding_NE[kept_N], n_N[kept_N]) for end, (embedding_NE, n_N) in self.rounds.items()}
        return replace(self, tracks=self.tracks.filter(pa.array(kept_N)), rounds=rounds, **arrays)

    def after(self, segments: int) -> "FoldScores":
        """The same after so many segments, one of `rounds`; a track that has no more keeps what it has."""
        embedding_NE, segments_N = self.rounds.get(segments, (self.embedding_NE, self.segments_N))
        return replace(self, embedding_NE=embedding_NE, segments_N=segments_N)

    def targets(self, task: str) -> np.ndarray:
        """(N,) the class of each track; `MISSING` if it has no label or the model does not know it."""
        return self.vocabularies[task].encode(self.tracks[task].to_pylist())


def calibrate(
    folds: Sequence[FoldScores],
    tasks: Sequence[str],
    *,
    precision: float,
    unknown_share: float,
    seed: int,
    score: Mapping[str, str] | None = None,
) -> Aggregation:
    """The aggregation of the final model.

    Args:
        folds: of every fold model. Tracks without sound, or without a label of the task, are left out.
        tasks: of the final model.
        precision, unknown_share, seed: see `unknown.choose_threshold`.
        score: task -> the score that tells unknown artists; None: it is chosen.
    """
    temperature: dict[str, float] = {}
    chosen: dict[str, str] = dict(score or {})
    shortest: dict[str, float] = {}
    threshold: dict[str, float | None] = {}
    for task in tasks:
        rows = [labelled(fold, task) for fold in folds if task in fold.heads]
        temperature[task] = _temperature(rows, task, seed)
        known_N = np.concatenate([fold.known_N for fold in rows])
        artists_N = np.concatenate([np.array(fold.tracks["artist"].to_pylist(), object) for fold in rows]).astype(str)
        shortest[task] = _shortest(rows, task)
        scored = [score_tracks(fold, task, temperature[task], shortest[task]) for fold in rows]
        right_N = np.concatenate([right_N for right_N, _ in scored])
        scores = {
            name: np.concatenate(
                on_one_scale([(fold.known_N, of[name]) for fold, (_, of) in zip(rows, scored, strict=True)])
            )
            for name in SCORES
        }
        positive_N = known_N if task == "artist" else right_N
        if task not in chosen:
            chosen[task] = max(SCORES, key=lambda name: auroc(scores[name], positive_N))
        threshold[task] = choose_threshold(
            scores[chosen[task]],
            right_N,
            known_N,
            artists_N,
            precision=precision,
            unknown_share=unknown_share,
            seed=seed,
        )
    return Aggregation(temperature=temperature, score=chosen, shortest=shortest, threshold=threshold)


def auroc(scores_N: np.ndarray, positive_N: np.ndarray) -> float:
    """The share of pairs of a positive and a negative track in which the positive one has the higher score.

    It is 1/2 where there is no pair.
    """
    n_pairs = int(positive_N.sum()) * int((~positive_N).sum())
    return float(mannwhitneyu(scores_N[positive_N], scores_N[~positive_N]).statistic / n_pairs) if n_pairs else 0.5


def out_of_fold_table(folds: Sequence[FoldScores], aggregation: Aggregation) -> pa.Table:
    """A row of `schema.OUT_OF_FOLD` for each track and model, with the tags of the aggregation."""
    return pa.concat_tables([_fold_table(fold, aggregation) for fold in folds])


def _fold_table(fold: FoldScores, aggregation: Aggregation) -> pa.Table:
    has_sound_N = fold.segments_N > 0
    columns: dict[str, Any] = {
        **{name: fold.tracks[name].to_pylist() for name in ("track_id", "artist", "language")},
        "fold": [fold.fold] * len(has_sound_N),
        "known": fold.known_N.tolist(),
        "n_segments": fold.segments_N.tolist(),
        "embedding": [row if sounds else None for row, sounds in zip(fold.embedding_NE, has_sound_N, strict=True)],
    }
    for task, head in fold.heads.items():
        tags: list[Tag | None] = []
        true_probabilities: list[float | None] = []
        for embedding_E, sounds, target in zip(fold.embedding_NE, has_sound_N, fold.targets(task), strict=True):
            tags.append(None)
            true_probabilities.append(None)
            if sounds:
                tags[-1] = tag_embedding(embedding_E, head, task, fold.vocabularies[task], aggregation)
                if target != MISSING:
                    p_C = probabilities(head.logits(embedding_E), aggregation.temperature[task])
                    true_probabilities[-1] = float(p_C[target])
        columns[f"{task}_true_probability"] = true_probabilities
        columns[f"{task}_tag"] = [row and row.label for row in tags]
        columns[f"{task}_top"] = [top_entries(row.top) if row else [] for row in tags]
        columns[f"{task}_score"] = [row and row.score for row in tags]
    names = [name for name in OUT_OF_FOLD.names if name in columns]
    table = pa.table({name: pa.array(columns[name], OUT_OF_FOLD.field(name).type) for name in names})
    for missing in (column for column in OUT_OF_FOLD if column.name not in names):
        table = table.append_column(missing, pa.nulls(len(table), missing.type))
    return table.select(OUT_OF_FOLD.names)


def labelled(fold: FoldScores, task: str) -> FoldScores:
    """The tracks with sound and a label of the task, also one that the model does not know."""
    labelled_N = np.array(fold.tracks[task].is_valid().to_pylist(), bool)
    return fold.select(labelled_N & (fold.segments_N > 0))


def _shortest(folds: Sequence[FoldScores], task: str) -> float:
    """Half the median length of the embeddings of known artists' songs; of all songs if there are none."""
    lengths = [fold.heads[task].lengths(fold.embedding_NE) for fold in folds]
    of_known = np.concatenate([length_N[fold.known_N] for length_N, fold in zip(lengths, folds, strict=True)])
    length_N = of_known if len(of_known) else np.concatenate(lengths)
    return max(float(np.median(length_N)) / 2, 1e-6) if len(length_N) else 1.0


def _temperature(folds: Sequence[FoldScores], task: str, seed: int) -> float:
    """The temperature that calibrates the songs of known artists; if there are none, all songs."""
    of_known = [fold.select(fold.known_N & (fold.targets(task) != MISSING)) for fold in folds]
    if not any(len(fold.tracks) for fold in of_known):
        of_known = [fold.select(fold.targets(task) != MISSING) for fold in folds]
    logits, targets = [], []
    for fold in of_known:
        kept = np.arange(len(fold.tracks))
        if len(kept) > TEMPERATURE_TRACKS:
            kept = np.sort(np.random.default_rng(seed).choice(kept, TEMPERATURE_TRACKS, replace=False))
        logits.append(fold.heads[task].all_logits(fold.embedding_NE[kept]))
        targets.append(fold.targets(task)[kept])
    n_classes = max((logits_NC.shape[1] for logits_NC in logits), default=0)
    padded = [
        np.pad(logits_NC, ((0, 0), (0, n_classes - logits_NC.shape[1])), constant_values=-np.inf)
        for logits_NC in logits
    ]
    return fit_temperature(np.concatenate(padded), np.concatenate(targets)) if padded else 1.0


def score_tracks(
    fold: FoldScores, task: str, temperature: float, shortest: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(N,) whether the most probable label is right, and each of the `SCORES` (N,)."""
    length_N = fold.heads[task].lengths(fold.embedding_NE)
    right, scores = [np.zeros(0, bool)], {name: [np.zeros(0)] for name in SCORES}
    for rows in blocks(len(fold.tracks), fold.heads[task]):
        logits_NC = fold.heads[task].all_logits(fold.embedding_NE[rows])
        right.append(logits_NC.argmax(1) == fold.targets(task)[rows])
        _, sum_N1 = softmax_terms(logits_NC, temperature)
        largest_N = logits_NC.max(1).astype(np.float64) / temperature
        for name in SCORES:
            scores[name].append(unknown_score(name, largest_N, sum_N1[:, 0], length_N[rows], shortest))
    return np.concatenate(right), {name: np.concatenate(values) for name, values in scores.items()}


def blocks(n_rows: int, head: Head) -> Iterator[slice]:
    """Slices of so many rows that their logits fit in memory."""
    size = max(1, _BLOCK_VALUES // head.n_classes)
    return (slice(first, first + size) for first in range(0, n_rows, size))


def on_one_scale(folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The scores of each fold, of (known, scores), shifted so that the median of its known songs is that of all folds.

    Fold models differ: a score of one is not worth the same score of another.
    """
    medians = [
        np.median(scores_N[known_N] if known_N.any() else scores_N) for known_N, scores_N in folds if len(scores_N)
    ]
    if not medians:
        return [scores_N for _, scores_N in folds]
    common, shifts = float(np.mean(medians)), iter(medians)
    return [scores_N - next(shifts) + common if len(scores_N) else scores_N for _, scores_N in folds]
