"""Embedding tagger: rows of the tags table -> the tags of a model with the same trunk, without any audio.

A head is linear, so the mean embedding in the table is all that a tag needs. A row is taken only where the model would
have read the very segments that its embedding is the mean of. Other tracks have to be decoded.

Legend: N tracks, C classes, E embedding (96), K entries of a top list.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ
from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.segments import FIRST_ROUND, SEGMENT_SAMPLES, WHOLE_TO
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.inference.tagging.aggregation import TOP_LABELS, Aggregation, Stop, TopClasses, top_classes
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.heads import Head
from mtl_core.schema import TAGS

DURATION_TOLERANCE_S = 0.001  # the table holds durations in float32
#: Relative distance of two values from which rounding cannot change their order.
NEAR = 1e-4
_BLOCK_VALUES = 500_000  # logits at a time, which fit in a core's cache


class EmbeddingTagger:
    """Tags rows of the table anew.

    Args:
        front_end, heads, vocabularies, aggregation: of the model, as of `tagger.Tagger`.
        options: how many segments of a track the model would read.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        heads: Mapping[str, Head],
        vocabularies: Mapping[str, Vocabulary],
        aggregation: Aggregation,
        options: ExitOptions,
    ) -> None:
        self._front_end, self._heads, self._aggregation, self._options = front_end, heads, aggregation, options
        self._labels = {task: pa.array(vocabulary.labels, pa.string()) for task, vocabulary in vocabularies.items()}

    def tag(self, rows: pa.Table, *, model_id: str, run_id: str | None) -> tuple[pa.Table, np.ndarray]:
        """Tag rows of `schema.TAGS` whose trunk is the model's.

        Returns:
            The rows (N) with their new tags, and whether (N,) the model would have read the same segments. The tags of
            the other rows mean nothing.
        """
        read_N = rows["n_segments"].to_numpy()
        fewest_N, most_N = self._n_segments(rows["duration_s"].to_numpy())
        whole_N = read_N >= most_N
        # Where rounding leaves the number open, and with it whether the row has all segments, the track is decoded.
        open_N = (fewest_N != most_N) & ~whole_N
        sounds_N = rows["embedding"].is_valid().to_numpy()
        embedding_NE = np.zeros((len(rows), next(iter(self._heads.values())).weight_CE.shape[1]), np.float32)
        values = pc.drop_null(rows["embedding"].combine_chunks()).flatten().to_numpy()
        embedding_NE[sounds_N] = values.reshape(-1, embedding_NE.shape[1])
        most = self._options.segments
        taken_N = whole_N & (True if most is None else read_N <= most)
        if most is not None:
            taken_N |= (read_N == most) & ~open_N
        tags = {task: _TaskTags.empty(len(rows), len(labels)) for task, labels in self._labels.items()}
        for read, whole in sorted({*zip(read_N[sounds_N].tolist(), whole_N[sounds_N].tolist(), strict=True)}):
            of_N = sounds_N & (read_N == read) & (whole_N == whole) & ~open_N
            of = None if whole else self._aggregation.round_of(read)
            numbers = self._aggregation if of is None else of.numbers
            if whole or not self._options.uses_rule:
                limits = {task: _Limits.of_threshold(numbers.threshold[task]) for task in tags}
            elif of is not None and tags.keys() <= of.stop.keys() and _ends_a_round(read):
                limits = {task: _Limits.of_stop(of.stop[task]) for task in tags}
                of_N &= most_N > WHOLE_TO
                taken_N |= of_N
            else:
                continue
            for rows_B in _blocks(np.flatnonzero(of_N & taken_N), max(map(len, self._labels.values()))):
                for task, head in self._heads.items():
                    found, is_finite_B = _find(embedding_NE[rows_B], head, task, numbers, limits[task])
                    tags[task].fill(rows_B, found, limits[task])
                    taken_N[rows_B] &= is_finite_B & limits[task].decide(found)
        return self._table(rows, tags, sounds_N, model_id, run_id), taken_N

    def _n_segments(self, duration_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) the fewest and the most segments of recordings of so many seconds, as rounded as these are."""
        if self._front_end.segments is None:  # the sampling `paper` has no rounds
            return np.zeros(len(duration_N), np.int64), np.zeros(len(duration_N), np.int64)
        seconds_N, largest = duration_N.astype(np.float64), self._front_end.segments
        fewest_N, most_N = (
            np.clip(((seconds_N + of) * SAMPLE_RATE_HZ // SEGMENT_SAMPLES).astype(np.int64), 1, largest)
            for of in (-DURATION_TOLERANCE_S, DURATION_TOLERANCE_S)
        )
        return fewest_N, most_N

    def _table(
        self, rows: pa.Table, tags: Mapping[str, "_TaskTags"], sounds_N: np.ndarray, model_id: str, run_id: str | None
    ) -> pa.Table:
        n = len(rows)
        changed = {
            "model_id": pa.repeat(pa.scalar(model_id, pa.string()), n),
            "run_id": pa.repeat(pa.scalar(run_id, pa.string()), n),
            "tagged_at": pa.repeat(pa.scalar(datetime.now(UTC), TAGS.field("tagged_at").type), n),
        }
        for task in TASKS:
            columns = tags[task].columns(self._labels[task], sounds_N) if task in tags else [pa.nulls(n)] * 4
            names = (task, f"{task}_confidence", f"{task}_top", f"{task}_score")
            changed |= dict(zip(names, columns, strict=True))
        return pa.table(
            {field.name: changed.get(field.name, rows[field.name]) for field in TAGS if field.name in rows.column_names}
        ).cast(TAGS)


def _ends_a_round(read: int) -> bool:
    """Whether a track is ever asked after so many segments: 4, 8, 16 …"""
    return read >= FIRST_ROUND and (read // FIRST_ROUND).bit_count() == 1 and read % FIRST_ROUND == 0


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """Where a class is named and where it is not: in between, more segments have to be read."""

    null_below: float
    named_from: float
    odds_from: float  # of the most probable class against the second

    @classmethod
    def of_threshold(cls, threshold: float | None) -> "_Limits":
        limit = -np.inf if threshold is None else threshold
        return cls(null_below=limit, named_from=limit, odds_from=0.0)

    @classmethod
    def of_stop(cls, stop: Stop) -> "_Limits":
        return cls(null_below=stop.null_below, named_from=stop.named_from, odds_from=stop.odds_from)

    def decide(self, found: TopClasses) -> np.ndarray:
        """(N,) whether a track needs no more segments."""
        first_N, second_N = _first_and_second(found)
        named_N = (found.score_N >= self.named_from) & (first_N >= self.odds_from * second_N)
        return (found.score_N < self.null_below) | named_N

    def near(self, found: TopClasses) -> np.ndarray:
        """(N,) whether rounding could change what is decided."""
        first_N, second_N = _first_and_second(found)
        near_N = np.zeros(len(first_N), bool)
        for limit in {limit for limit in (self.null_below, self.named_from) if np.isfinite(limit)}:
            near_N |= np.abs(found.score_N - limit) <= NEAR * max(1, abs(limit))
        for odds in (1.0, self.odds_from):
            near_N |= np.abs(first_N - odds * second_N) <= NEAR * first_N
        return near_N


def _first_and_second(found: TopClasses) -> tuple[np.ndarray, np.ndarray]:
    p_NK = found.probability_NK
    return p_NK[:, 0], p_NK[:, 1] if p_NK.shape[1] > 1 else np.zeros(len(p_NK))


def _find(
    embedding_NE: np.ndarray, head: Head, task: str, numbers: Aggregation, limits: _Limits
) -> tuple[TopClasses, np.ndarray]:
    """The most probable classes of tracks, and whether (N,) their logits are finite: of the others they mean nothing.

    Many tracks at once are scored within rounding of what `Head.logits` gives one. Where that could change a tag, the
    track is scored alone.
    """
    length_N = head.lengths(embedding_NE)
    with np.errstate(over="ignore", invalid="ignore"):
        logits_NC = head.all_logits(embedding_NE)
    is_finite_N = np.isfinite(logits_NC).all(1)
    logits_NC[~is_finite_N] = 0
    found = top_classes(logits_NC, length_N, task, numbers)
    near = np.flatnonzero(limits.near(found) & is_finite_N)
    if len(near):
        alone = [embedding_NE[i] for i in near]
        lengths = np.concatenate([head.lengths(embedding_E[None]) for embedding_E in alone])
        exact = top_classes(np.stack([head.logits(embedding_E) for embedding_E in alone]), lengths, task, numbers)
        for name, values in vars(exact).items():
            getattr(found, name)[near] = values
    return found, is_finite_N


@dataclass(frozen=True)
class _TaskTags:
    """The tags of N tracks in one task."""

    found: TopClasses
    is_named_N: np.ndarray

    @classmethod
    def empty(cls, n: int, n_classes: int) -> "_TaskTags":
        k = min(TOP_LABELS, n_classes)
        found = TopClasses(class_NK=np.zeros((n, k), np.int64), probability_NK=np.zeros((n, k)), score_N=np.zeros(n))
        return cls(found, np.zeros(n, bool))

    def fill(self, rows_B: np.ndarray, found: TopClasses, limits: _Limits) -> None:
        for name, values in vars(found).items():
            getattr(self.found, name)[rows_B] = values
        self.is_named_N[rows_B] = found.score_N >= limits.null_below

    def columns(self, labels: pa.Array, sounds_N: np.ndarray) -> list[pa.Array]:
        """Label, confidence, top list and score; a track without sound has an empty list and nothing else."""
        k = self.found.class_NK.shape[1]
        classes_NK, p_NK = self.found.class_NK[sounds_N], self.found.probability_NK[sounds_N]
        top = pa.StructArray.from_arrays(
            [labels.take(pa.array(classes_NK.reshape(-1))), pa.array(p_NK.reshape(-1).astype(np.float32))],
            ["label", "probability"],
        )
        offsets = np.concatenate(([0], np.cumsum(np.where(sounds_N, k, 0)))).astype(np.int32)
        label = labels.take(pa.array(self.found.class_NK[:, 0], mask=~(sounds_N & self.is_named_N)))
        return [
            label,
            pa.array(self.found.probability_NK[:, 0], pa.float32(), mask=~sounds_N),
            pa.ListArray.from_arrays(offsets, top),
            pa.array(self.found.score_N, pa.float32(), mask=~sounds_N),
        ]


def _blocks(rows_N: np.ndarray, n_classes: int) -> Iterator[np.ndarray]:
    """The rows, so many at a time that their logits fit in memory."""
    size = max(1, _BLOCK_VALUES // n_classes)
    return (rows_N[first : first + size] for first in range(0, len(rows_N), size))
