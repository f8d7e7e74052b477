"""Tagger: the segments of tracks -> rows of the tags table.

Legend: S segments (of several tracks, one after another), T frames, F mel bands, C classes, E embedding (96).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.sound_level import has_sound
from mtl_core.audio.track_reader import FailedTrack, Row, Track
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.errors import TrackError
from mtl_core.inference.aggregation import Aggregation, Tag, tag, top_entries
from mtl_core.inference.heads import Head, mean_embedding


class Engine(Protocol):
    """Runs the network: `openvino_engine.CpuEngine` or `torch_engine.TorchEngine`."""

    def infer(self, mel_STF: np.ndarray) -> np.ndarray:
        """Segments (S, T, F) float32 -> embeddings (S, E) float32."""


class Tagger:
    """Tags tracks that were read.

    Args:
        engine: runs the network.
        front_end: what made the segments.
        heads, vocabularies: task -> its head and its classes.
        aggregation: how a head's output becomes a tag.
    """

    def __init__(
        self,
        engine: Engine,
        front_end: FrontEnd,
        heads: Mapping[str, Head],
        vocabularies: Mapping[str, Vocabulary],
        aggregation: Aggregation,
    ) -> None:
        self._engine, self._front_end, self._aggregation = engine, front_end, aggregation
        self._heads, self._vocabularies = heads, vocabularies

    def tag(self, tracks: Sequence[Track], *, model_id: str, run_id: str | None) -> list[Row | FailedTrack]:
        """Tag tracks, each with one segment or more, in one pass of the network.

        Segments without sound do not count. The tag of a track without any segment that counts is null in every task,
        and so is its embedding; that is no failure.

        Returns:
            A row of `schema.TAGS` for each track, in order, with the `model_id` and `run_id` (None outside a run). A
            track whose output is not finite fails with stage model.
        """
        if not tracks:
            return []
        mel_STF = np.concatenate([track.segments.mel_STF for track in tracks])
        counts_S = has_sound(mel_STF, self._front_end.mel, self._front_end.filter_bank)
        ends = np.cumsum([len(track.segments.start_s) for track in tracks])
        n_counted = [int(counts_S[start:end].sum()) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        embedding_SE = self._engine.infer(mel_STF if counts_S.all() else mel_STF[counts_S]) if any(n_counted) else None
        results: list[Row | FailedTrack] = []
        first = 0
        for track, n in zip(tracks, n_counted, strict=True):
            embedding_E = None if embedding_SE is None or n == 0 else mean_embedding(embedding_SE[first : first + n])
            first += n
            logits = (
                {} if embedding_E is None else {task: head.logits(embedding_E) for task, head in self._heads.items()}
            )
            if embedding_E is not None and not all(np.isfinite(x).all() for x in (embedding_E, *logits.values())):
                error = TrackError("model", "failed", "the model's output is not finite")
                results.append(FailedTrack(track.row, error))
                continue
            tags = {} if embedding_E is None else self._tags(logits, embedding_E)
            results.append(
                {
                    "track_id": track.row["track_id"],
                    "uri": track.row["uri"],
                    "content_id": track.row.get("content_id"),
                    "duration_s": track.duration_s,
                    "n_segments": n,
                    **{
                        name: value
                        for task in TASKS
                        for name, value in self._label_columns(task, tags.get(task)).items()
                    },
                    "embedding": embedding_E,
                    "model_id": model_id,
                    "run_id": run_id,
                    "tagged_at": datetime.now(UTC),
                    "lost_s": track.lost_s,
                    **{f"{task}_score": tags[task].score if task in tags else None for task in TASKS},
                }
            )
        return results

    def _tags(self, logits: Mapping[str, np.ndarray], embedding_E: np.ndarray) -> dict[str, Tag]:
        tags = {}
        for task, logits_C in logits.items():
            (length,) = self._heads[task].lengths(embedding_E[None])
            tags[task] = tag(logits_C, task, self._vocabularies[task], self._aggregation, float(length))
        return tags

    def _label_columns(self, task: str, tag: Tag | None) -> dict[str, Any]:
        """Three columns; null for a task without a head. A silent track has an empty top list."""
        if tag is None:
            return {task: None, f"{task}_confidence": None, f"{task}_top": [] if task in self._heads else None}
        return {task: tag.label, f"{task}_confidence": tag.confidence, f"{task}_top": top_entries(tag.top)}
