"""Tagger: the segments of tracks -> rows of the tags table.

Legend: S segments (of several tracks, one after another), T frames, F mel bands, C classes, E embedding (96).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from mtl_core.audio.front_end import FrontEnd, Segments
from mtl_core.audio.segments import FIRST_ROUND
from mtl_core.audio.sound_level import has_sound
from mtl_core.audio.track_reader import FailedTrack, OpenTrack, Row, Track
from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.errors import TrackError
from mtl_core.inference.tagging.aggregation import Aggregation, Round, Tag, tag, top_entries
from mtl_core.inference.tagging.early_exit import ExitOptions
from mtl_core.inference.tagging.heads import Head, mean_embedding
from mtl_core.timing import StageTimer


class Engine(Protocol):
    """Runs the network: `openvino_engine.CpuEngine` or `torch_engine.TorchEngine`."""

    def infer(self, mel_STF: np.ndarray) -> np.ndarray:
        """Segments (S, T, F) float32 -> embeddings (S, E) float32."""


@dataclass(frozen=True, kw_only=True)
class ReadRound:
    """A round of a track's segments, and what all segments so far say."""

    segments: Segments  # of this round
    sounds_R: np.ndarray  # which of them have sound
    embedding_KE: np.ndarray  # of those
    n_read: int  # segments so far
    n_voted: int  # of these, with sound
    embedding_E: np.ndarray | None  # their mean; None without sound
    tags: dict[str, Tag]  # by task; empty without sound
    of: Round | None  # whose numbers made the tags; None: those of all segments
    is_decided: bool  # whether the rule ends the reading here


class Tagger:
    """Tags tracks that were read, or reads and tags tracks that are open.

    Args:
        engine: runs the network.
        front_end: what made the segments.
        heads, vocabularies: task -> its head and its classes.
        aggregation: how a head's output becomes a tag.
        options: how many segments of a track are read, where it is the tagger that reads it.
        trunk_id: of the network, see `artifact_files.trunk_hash`.
    """

    def __init__(
        self,
        engine: Engine,
        front_end: FrontEnd,
        heads: Mapping[str, Head],
        vocabularies: Mapping[str, Vocabulary],
        aggregation: Aggregation,
        options: ExitOptions | None = None,
        *,
        trunk_id: str | None = None,
    ) -> None:
        self._trunk_id = trunk_id
        self._engine, self._front_end, self._aggregation = engine, front_end, aggregation
        self._heads, self._vocabularies = heads, vocabularies
        self._options = options or ExitOptions()
        self._exits = self._options.uses_rule and any(of.stop for of in aggregation.rounds)

    @property
    def reads_first(self) -> int | None:
        """The segments of a track that `read_and_tag` reads at first; None: all."""
        return FIRST_ROUND if self._exits else self._options.segments

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
        embedding_SE, counts_S = self._embed(np.concatenate([track.segments.mel_STF for track in tracks]))
        ends = np.cumsum([len(track.segments.start_s) for track in tracks])
        n_counted = [int(counts_S[start:end].sum()) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        results: list[Row | FailedTrack] = []
        first = 0
        for track, n in zip(tracks, n_counted, strict=True):
            numbers = self._aggregation if track.is_whole else self._numbers(len(track.segments.start_s))
            try:
                embedding_E, tags = self._tags(embedding_SE[first : first + n], numbers)
            except TrackError as error:
                results.append(FailedTrack(track.row, error))
            else:
                results.append(self._row(track, len(track.segments.start_s), n, embedding_E, tags, model_id, run_id))
            first += n
        return results

    def read_and_tag(
        self, tracks: Iterable[OpenTrack | FailedTrack], timer: StageTimer, *, model_id: str, run_id: str | None
    ) -> Iterator[Row | FailedTrack]:
        """Read and tag tracks one by one: as many rounds as the rule asks for, else all or a fixed number of segments.

        `timer` gets the seconds of the stage "model". Yields what `tag` returns for a track; it fails also where
        reading fails.
        """
        for track in tracks:
            try:
                if isinstance(track, FailedTrack):
                    yield track
                elif self._exits:
                    yield self._tag_in_rounds(track, timer, model_id, run_id)
                else:
                    read = track.read(self._options.segments)
                    with timer.timed("model"):
                        yield from self.tag([read], model_id=model_id, run_id=run_id)
            except TrackError as error:
                yield FailedTrack(track.row, error)

    def _tag_in_rounds(self, track: OpenTrack, timer: StageTimer, model_id: str, run_id: str | None) -> Row:
        *_, last = self.read_rounds(track, timer)
        track.check_lost()
        return self._row(track, last.n_read, last.n_voted, last.embedding_E, last.tags, model_id, run_id)

    def read_rounds(self, track: OpenTrack, timer: StageTimer) -> Iterator["ReadRound"]:
        """Read a track in rounds, until the rule says that its tags are decided; without a rule, to its end.

        Raises TrackError where reading fails, or the network's output is not finite.
        """
        embeddings, numbers, n_read = [], [], 0
        for numbers_R, segments in track.read_rounds():
            with timer.timed("model"):
                embedding_RE, sounds_R = self._embed(segments.mel_STF)
                embeddings.append(embedding_RE)
                numbers.append(numbers_R[sounds_R])
                n_read += len(numbers_R)
                in_time_SE = np.concatenate(embeddings)[np.argsort(np.concatenate(numbers))]
                of = None if n_read == track.n_segments else self._aggregation.round_of(n_read)
                embedding_E, tags = self._tags(in_time_SE, self._aggregation if of is None else of.numbers)
                is_decided = self._exits and of is not None and of.decides(tags) and not track.is_lost
                if of is not None and is_decided:
                    tags = of.final(tags)
            yield ReadRound(
                segments=segments,
                sounds_R=sounds_R,
                embedding_KE=embedding_RE,
                n_read=n_read,
                n_voted=len(in_time_SE),
                embedding_E=embedding_E,
                tags=tags,
                of=of,
                is_decided=is_decided,
            )
            if is_decided:
                return

    def _embed(self, mel_STF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of the segments that have sound, and (S,) which these are."""
        counts_S = has_sound(mel_STF, self._front_end.mel, self._front_end.filter_bank)
        if not counts_S.any():
            return np.zeros((0, next(iter(self._heads.values())).weight_CE.shape[1]), np.float32), counts_S
        return self._engine.infer(mel_STF if counts_S.all() else mel_STF[counts_S]), counts_S

    def _numbers(self, n_segments: int) -> Aggregation:
        """The numbers of a track of which so many segments were read, and no more."""
        of = self._aggregation.round_of(n_segments)
        return self._aggregation if of is None else of.numbers

    def _tags(self, embedding_SE: np.ndarray, numbers: Aggregation) -> tuple[np.ndarray | None, dict[str, Tag]]:
        """The mean embedding of segments with sound, and the tag of each task; None and no tag without segments.

        Raises TrackError where the network's output is not finite.
        """
        if not len(embedding_SE):
            return None, {}
        embedding_E = mean_embedding(embedding_SE)
        logits = {task: head.logits(embedding_E) for task, head in self._heads.items()}
        if not all(np.isfinite(x).all() for x in (embedding_E, *logits.values())):
            raise TrackError("model", "failed", "the model's output is not finite")
        tags = {}
        for task, logits_C in logits.items():
            (length,) = self._heads[task].lengths(embedding_E[None])
            tags[task] = tag(logits_C, task, self._vocabularies[task], numbers, float(length))
        return embedding_E, tags

    def _row(
        self,
        track: Track | OpenTrack,
        n_segments: int,
        n_voted: int,
        embedding_E: np.ndarray | None,
        tags: Mapping[str, Tag],
        model_id: str,
        run_id: str | None,
    ) -> Row:
        columns = [self._label_columns(task, tags.get(task)) for task in TASKS]
        return {
            "track_id": track.row["track_id"],
            "uri": track.row["uri"],
            "content_id": track.row.get("content_id"),
            "duration_s": track.duration_s,
            "n_segments": n_segments,
            **{name: value for of_task in columns for name, value in of_task.items()},
            "embedding": embedding_E,
            "model_id": model_id,
            "run_id": run_id,
            "tagged_at": datetime.now(UTC),
            "lost_s": track.lost_s,
            **{f"{task}_score": tags[task].score if task in tags else None for task in TASKS},
            "n_voted": n_voted,
            "trunk_id": self._trunk_id,
        }

    def _label_columns(self, task: str, tag: Tag | None) -> dict[str, Any]:
        """Three columns; null for a task without a head. A silent track has an empty top list."""
        if tag is None:
            return {task: None, f"{task}_confidence": None, f"{task}_top": [] if task in self._heads else None}
        return {task: tag.label, f"{task}_confidence": tag.confidence, f"{task}_top": top_entries(tag.top)}
