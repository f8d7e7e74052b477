"""Aggregation: a track's logits in a task -> its probabilities, and the tag that follows from them.

Probabilities sum to 1. Tagging, calibration and evaluation all call these functions, so what is measured is what is
written. Legend: N tracks, C classes, K entries of a top list, B blocks of W classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mtl_core.dataset.vocabulary import TASKS, Vocabulary
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.softmax import check_positive, softmax_terms
from mtl_core.inference.tagging.unknown import PROBABILITY, SCORES, unknown_score

#: The only way from segments to a track, which the mean embedding gives (`heads`). Artifacts name it.
METHOD = "mean_log_probability"
TOP_LABELS = 5
_BLOCK = 64  # classes


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How segments become a tag; `asdict` gives its JSON values, which an artifact holds.

    Raises ValueError where a method, task, temperature or threshold is not allowed.
    """

    method: str = METHOD
    #: Task -> divisor of the logits, above 0. A task that is left out has 1.
    temperature: dict[str, float] = field(default_factory=dict)
    #: Task -> the score by which a track of an unknown class is told, one of `unknown.SCORES`. A task that is left out
    #: has the probability, as in version 0.1.
    score: dict[str, str] = field(default_factory=dict)
    #: Task -> the length, above 0, that a shorter embedding counts as in the score "cosine". Left out: 1.
    shortest: dict[str, float] = field(default_factory=dict)
    #: Task -> the score below which the label is null. None, or left out: never null.
    threshold: dict[str, float | None] = field(default_factory=dict)
    #: The same after the first segments of a recording that has more, in rising order of their number. JSON values are
    #: taken, too. Empty: all segments are read.
    rounds: tuple["Round", ...] = ()

    def __post_init__(self) -> None:
        if self.method != METHOD:
            raise ValueError(f"unknown aggregation method {self.method!r}: allowed is {METHOD!r}")
        for task in [*self.temperature, *self.score, *self.shortest, *self.threshold]:
            if task not in TASKS:
                raise ValueError(f"unknown task {task!r}: allowed are {TASKS}")
        object.__setattr__(self, "temperature", {**dict.fromkeys(TASKS, 1.0), **self.temperature})
        object.__setattr__(self, "score", {**dict.fromkeys(TASKS, PROBABILITY), **self.score})
        object.__setattr__(self, "shortest", {**dict.fromkeys(TASKS, 1.0), **self.shortest})
        object.__setattr__(self, "threshold", {**dict.fromkeys(TASKS), **self.threshold})
        for task, temperature in self.temperature.items():
            check_positive(temperature, f"temperature of {task}")
        for task, length in self.shortest.items():
            check_positive(length, f"shortest of {task}")
        for task, threshold in self.threshold.items():
            if self.score[task] not in SCORES:
                raise ValueError(f"score of {task} must be one of {SCORES}, got {self.score[task]!r}")
            if threshold is not None and np.isnan(threshold):
                raise ValueError(f"threshold of {task} must be None or a number, got {threshold}")
        rounds = tuple(of if isinstance(of, Round) else Round.from_dict(of) for of in self.rounds)
        object.__setattr__(self, "rounds", tuple(sorted(rounds, key=lambda of: of.segments)))

    def round_of(self, n_segments: int) -> "Round | None":
        """The last round of at most so many segments; None: there is none."""
        return next((of for of in reversed(self.rounds) if of.segments <= n_segments), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; fields that are not of version 0.1 are left out at their default."""
        values = asdict(self)
        if set(values["score"].values()) == {PROBABILITY}:
            del values["score"], values["shortest"]
        if not self.rounds:
            del values["rounds"]
        return values


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a task is decided before all segments are read: nothing that is still to come would change the tag."""

    odds_from: float  # of the most probable label against the second: from here on the label stays
    named_from: float  # score from which the label stays a name
    null_below: float  # score below which the label stays null

    def decides(self, tag: "Tag") -> bool:
        """Whether the tag of the segments so far is that of all of them."""
        if tag.score < self.null_below:
            return True
        (_, first), *others = tag.top
        return tag.score >= self.named_from and (not others or first >= self.odds_from * others[0][1])


@dataclass(frozen=True, kw_only=True)
class Round:
    """The numbers of a track of which some segments were read."""

    segments: int  # that were read, of a recording that has more
    numbers: Aggregation  # instead of those of all segments
    stop: dict[str, Stop]  # task -> when it is decided; empty: never

    def decides(self, tags: Mapping[str, "Tag"]) -> bool:
        """Whether the tags, by task, are those of all segments."""
        return bool(tags) and tags.keys() <= self.stop.keys() and all(self.stop[t].decides(tags[t]) for t in tags)

    def final(self, tags: Mapping[str, "Tag"]) -> dict[str, "Tag"]:
        """The tags of a track that is decided, with a name or null as all segments would have it."""
        return {
            task: replace(of, label=None if of.score < self.stop[task].null_below else of.top[0][0])
            for task, of in tags.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Round":
        """Of JSON values. Raises ValueError, KeyError or TypeError where they are not those of a round."""
        return cls(
            segments=int(values["segments"]),
            numbers=Aggregation(**values["numbers"]),
            stop={task: Stop(**stop) for task, stop in values["stop"].items()},
        )


@dataclass(frozen=True)
class Tag:
    """A track's tag in one task."""

    label: str | None  # the most probable label, or None ("unknown") where the score is below the threshold
    confidence: float  # the probability of the most probable label, also where `label` is None
    top: list[tuple[str, float]]  # the min(5, classes) most probable labels, best first, ties in label order
    score: float  # by which it was told whether the label is known


def top_entries(top: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """A top list as the tables hold it."""
    return [{"label": label, "probability": probability} for label, probability in top]


@dataclass(frozen=True, kw_only=True)
class TopClasses:
    """The min(5, classes) most probable classes of N tracks, best first, ties in label order."""

    class_NK: np.ndarray  # indices
    probability_NK: np.ndarray  # float64
    score_N: np.ndarray  # by which it is told whether the class is known


def top_classes(logits_NC: np.ndarray, length_N: np.ndarray, task: str, aggregation: Aggregation) -> TopClasses:
    """The most probable classes of tracks in a task; a row's result is the same whatever other rows there are.

    Args:
        logits_NC: of the mean embeddings.
        length_N: of what the head uses of them (`Head.lengths`).

    Raises:
        ValueError: a logit is not finite.
    """
    temperature = aggregation.temperature[task]
    terms_NC, sum_N1 = softmax_terms(logits_NC, temperature)
    class_NK = _largest(terms_NC, min(TOP_LABELS, terms_NC.shape[1]))
    return TopClasses(
        class_NK=class_NK,
        probability_NK=np.take_along_axis(terms_NC, class_NK, 1) / sum_N1,
        score_N=unknown_score(
            aggregation.score[task],
            logits_NC.max(1).astype(np.float64) / temperature,
            sum_N1[:, 0],
            length_N,
            aggregation.shortest[task],
        ),
    )


def _largest(values_NC: np.ndarray, k: int) -> np.ndarray:
    """(N, k) the indices of the k largest values, 0 or more, of each row in falling order, ties in rising order.

    Of many classes only those blocks are sorted that have one of the k largest maxima: the others can hold none.
    """
    n, n_classes = values_NC.shape
    if n_classes <= 4 * _BLOCK:
        return np.argsort(-values_NC, axis=1, kind="stable")[:, :k]
    n_blocks = -(-n_classes // _BLOCK)
    padded = np.full((n, n_blocks * _BLOCK), -1, values_NC.dtype)
    padded[:, :n_classes] = values_NC
    blocks_NBW = padded.reshape(n, n_blocks, _BLOCK)
    best_Nk = np.sort(np.argsort(-blocks_NBW.max(2), axis=1, kind="stable")[:, :k], axis=1)
    candidates_Nc = np.take_along_axis(blocks_NBW, best_Nk[..., None], 1).reshape(n, -1)
    index_Nc = (best_Nk[..., None] * _BLOCK + np.arange(_BLOCK)).reshape(n, -1)
    return np.take_along_axis(index_Nc, np.argsort(-candidates_Nc, axis=1, kind="stable")[:, :k], 1)


def tag_embedding(
    embedding_E: np.ndarray, head: Head, task: str, vocabulary: Vocabulary, aggregation: Aggregation
) -> Tag:
    """A track's tag in a task from its mean embedding (E,). Raises ValueError as `tag`."""
    return tag(head.logits(embedding_E), task, vocabulary, aggregation, float(head.lengths(embedding_E[None])[0]))


def tag(logits_C: np.ndarray, task: str, vocabulary: Vocabulary, aggregation: Aggregation, length: float = 1.0) -> Tag:
    """A track's tag in a task from the (C,) logits of its mean embedding, in the vocabulary's order.

    `length` is that of what the head uses of the embedding (`Head.lengths`).

    Raises:
        ValueError: a logit is not finite, or the numbers of logits and labels differ.
    """
    if np.shape(logits_C) != (len(vocabulary),):
        raise ValueError(f"{len(vocabulary)} labels need as many logits, got shape {np.shape(logits_C)}")
    found = top_classes(np.asarray(logits_C)[None], np.array([length]), task, aggregation)
    top = [(vocabulary.labels[i], float(p)) for i, p in zip(found.class_NK[0], found.probability_NK[0], strict=True)]
    score, threshold = float(found.score_N[0]), aggregation.threshold[task]
    label, confidence = top[0]
    return Tag(None if threshold is not None and score < threshold else label, confidence, top, score)
