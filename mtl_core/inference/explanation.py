"""Explanation: why a track has its tags: what each segment says, where reading stopped, and why a tag is null.

Everything comes from the rounds that tagging reads, so what is explained is what is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.tagging.aggregation import Aggregation, Tag, tag_embedding, top_entries
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.tagger import ReadRound
from mtl_core.inference.tagging.unknown import NOTHING_IS_NAMED


@dataclass(frozen=True, kw_only=True)
class SegmentVote:
    """What a segment says."""

    start_s: float
    has_sound: bool
    top: dict[str, list[tuple[str, float]]]  # task -> the most probable labels of this segment alone
    mel_TF: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a track has its tags."""

    path: str
    duration_s: float
    n_segments: int  # that the front end names
    segments: list[SegmentVote]  # that were read, in order of time
    rounds: list[tuple[int, dict[str, Tag]]]  # number of segments so far -> the tags that they give
    tags: dict[str, Tag]  # by task; empty without sound
    reasons: dict[str, str]  # task -> why the tag is a name or null
    stopped: str  # why no more segments were read

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the mels are left out."""
        return {
            "path": self.path,
            "duration_s": self.duration_s,
            "n_segments": self.n_segments,
            "stopped": self.stopped,
            "tags": {task: _tag_values(tag) | {"reason": self.reasons[task]} for task, tag in self.tags.items()},
            "reasons": self.reasons,
            "rounds": [
                {"segments": n, "tags": {task: _tag_values(tag) for task, tag in tags.items()}}
                for n, tags in self.rounds
            ],
            "segments": [
                {
                    "start_s": segment.start_s,
                    "has_sound": segment.has_sound,
                    **{task: top_entries(top) for task, top in segment.top.items()},
                }
                for segment in self.segments
            ],
        }


def explain(
    path: str,
    duration_s: float,
    n_segments: int,
    rounds: Sequence[ReadRound],
    heads: Mapping[str, Head],
    vocabularies: Mapping[str, Vocabulary],
    aggregation: Aggregation,
) -> Explanation:
    """Explain the tags of a track that was read in rounds, one or more.

    Args:
        path, duration_s: of the file.
        n_segments: that the front end names; 0 where it names excerpts.
        heads, vocabularies, aggregation: of the model.
    """
    last = rounds[-1]
    numbers = aggregation if last.of is None else last.of.numbers
    segments = []
    for of_round in rounds:
        embeddings = iter(of_round.embedding_KE)
        votes = zip(of_round.segments.start_s, of_round.sounds_R, of_round.segments.mel_STF, strict=True)
        for start_s, sounds, mel_TF in votes:
            top: dict[str, list[tuple[str, float]]] = {task: [] for task in heads}
            if sounds:
                embedding_E = next(embeddings)
                for task, head in heads.items():
                    top[task] = tag_embedding(embedding_E, head, task, vocabularies[task], numbers).top
            segments.append(SegmentVote(start_s=float(start_s), has_sound=bool(sounds), top=top, mel_TF=mel_TF))
    if last.is_decided:
        stopped = f"after {last.n_read} of {n_segments} segments every task was decided"
    else:
        stopped = "all segments that the model's front end names were read"
    return Explanation(
        path=path,
        duration_s=duration_s,
        n_segments=n_segments or last.n_read,
        segments=sorted(segments, key=lambda segment: segment.start_s),
        rounds=[(of_round.n_read, of_round.tags) for of_round in rounds],
        tags=last.tags,
        reasons={task: _reason(task, last, numbers, aggregation) for task in heads},
        stopped=stopped,
    )


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _reason(task: str, last: ReadRound, numbers: Aggregation, final: Aggregation) -> str:
    """Why a tag is a name or null."""
    if task not in last.tags:
        return "null: no segment has sound"
    score, is_named = last.tags[task].score, last.tags[task].label is not None
    threshold = (final if last.is_decided else numbers).threshold[task]
    if threshold is None:
        return "named: the model has no threshold"
    limit = threshold
    if last.is_decided and last.of is not None:
        limit = last.of.stop[task].named_from if is_named else last.of.stop[task].null_below
    name = numbers.score[task]
    if is_named:
        return f"named: the score ({name}) {score:.4g} is not below {limit:.4g}"
    if threshold >= NOTHING_IS_NAMED:
        return "null: the model names nothing, because no threshold reached the precision that it was trained for"
    return f"null: the score ({name}) {score:.4g} is below {limit:.4g}"


def _tag_values(tag: Tag) -> dict[str, Any]:
    return {
        "label": tag.label,
        "confidence": tag.confidence,
        "score": tag.score,
        "top": top_entries(tag.top),
    }
