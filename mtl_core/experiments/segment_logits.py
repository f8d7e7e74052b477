"""Segment logits: the logits of the segments of labelled tracks, which an experiment stores and Table 1 is made from.

Segments without sound are left out, and tracks without any other segment. Tables of tracks have one row a track, in the
order of the logits.

Legend: S segments, C classes, N samples (tracks or segments).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.softmax import probabilities


@dataclass(frozen=True, kw_only=True)
class SegmentLogits:
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
        mean_NC = np.stack([logits_SC.mean(0, dtype=np.float64) for logits_SC in self.logits[task]])
        return probabilities(mean_NC, self.aggregation.temperature[task])

    def segment_probabilities(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) probabilities of all segments, track by track, and (N,) their class indices."""
        logits_NC = np.concatenate(self.logits[task]).astype(np.float64)
        p_NC = softmax(logits_NC / self.aggregation.temperature[task], axis=1)
        return p_NC, np.repeat(self.targets(task), self.n_segments)


def segment_logits(predictions: Predictions) -> SegmentLogits:
    """The logits of predictions that have the segments of all their tracks."""
    logits = {
        task: [head.all_logits(embedding_SE) for embedding_SE in predictions.segments]
        for task, head in predictions.heads.items()
    }
    return SegmentLogits(
        tracks=predictions.tracks,
        logits=logits,
        vocabularies=predictions.vocabularies,
        aggregation=predictions.aggregation,
    )
