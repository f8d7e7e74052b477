"""Tagger: the segments of tracks -> rows of the tags table.

Legend: S segments (of several tracks, one after another), T frames, F mel bands, C classes, E embedding (96).
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from mtl_core.audio.track_reader import FailedTrack, Row, Track
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.errors import TrackError
from mtl_core.inference.aggregation import Aggregation, tag, track_probabilities


class Engine(Protocol):
    """Runs the network: `openvino_engine.CpuEngine` or `torch_engine.TorchEngine`."""

    def infer(self, mel_STF: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Segments (S, T, F) float32 -> logits {task: (S, C)} and embeddings (S, E), float32."""


class Tagger:
    """Tags tracks that were read, with the engine, vocabularies (task -> classes) and aggregation of an artifact."""

    def __init__(self, engine: Engine, vocabularies: dict[str, Vocabulary], aggregation: Aggregation) -> None:
        self._engine, self._vocabularies, self._aggregation = engine, vocabularies, aggregation

    def tag(self, tracks: Sequence[Track], *, model_id: str, run_id: str | None) -> list[Row | FailedTrack]:
        """Tag tracks, each with one segment or more, in one pass of the network.

        Returns:
            A row of `schema.TAGS` for each track, in order, with the `model_id` and `run_id` (None outside a run). A
            track whose output is not finite fails with stage model.
        """
        if not tracks:
            return []
        logits, embedding_SE = self._engine.infer(np.concatenate([track.segments.mel_STF for track in tracks]))
        ends = np.cumsum([len(track.segments.start_s) for track in tracks])
        results: list[Row | FailedTrack] = []
        for track, start, end in zip(tracks, [0, *ends[:-1]], ends, strict=True):
            track_logits = {task: logits_SC[start:end] for task, logits_SC in logits.items()}
            outputs = [*track_logits.values(), embedding_SE[start:end]]
            if not all(np.isfinite(values).all() for values in outputs):
                error = TrackError("model", "failed", "the model's output is not finite")
                results.append(FailedTrack(track.row, error))
                continue
            results.append(
                {
                    "track_id": track.row["track_id"],
                    "uri": track.row["uri"],
                    "content_id": track.row.get("content_id"),
                    "duration_s": track.duration_s,
                    "n_segments": int(end - start),
                    **self._label_columns(track_logits),
                    "embedding": embedding_SE[start:end].mean(0),
                    "model_id": model_id,
                    "run_id": run_id,
                    "tagged_at": datetime.now(UTC),
                    "lost_s": track.lost_s,
                }
            )
        return results

    def _label_columns(self, logits: dict[str, np.ndarray]) -> dict[str, Any]:
        """The three columns of each task; null for a task without a head."""
        columns: dict[str, Any] = {}
        for task in TASKS:
            columns |= {task: None, f"{task}_confidence": None, f"{task}_top": None}
            if task in logits:
                probabilities_C = track_probabilities(logits[task], self._aggregation.temperature[task])
                result = tag(probabilities_C, self._vocabularies[task], self._aggregation.threshold[task])
                top = [{"label": label, "probability": probability} for label, probability in result.top]
                columns |= {task: result.label, f"{task}_confidence": result.confidence, f"{task}_top": top}
        return columns
