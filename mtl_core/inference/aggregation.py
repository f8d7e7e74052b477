"""From segments to a track: one distribution over the classes, its temperature, and the tag that comes of it.

Probabilities are float64 and sum to 1; logits are the model's, any float type. Legend: S segments, C classes, N tracks.
The same functions serve tagging, training (calibration) and evaluation, so that what is measured is what is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import log_softmax, softmax

from mtl_core.dataset.vocabulary import MISSING, TASKS, Vocabulary

Method = Literal["mean_log_probability", "mean_probability", "vote"]
METHODS: tuple[Method, ...] = get_args(Method)

TOP = 5
TEMPERATURE_RANGE = (0.05, 20.0)


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How segments become a tag; part of the artifact.

    Args:
        method: how the segments of a track are pooled, one of `METHODS`.
        temperature: task -> divisor of the logits, > 0; 1 for a task that is left out.
        threshold: task -> confidence (0 to 1) under which the label is null, "unknown"; None (or left out): never null.

    Raises:
        ValueError: a method, task, temperature or threshold that is not allowed.
    """

    method: Method = "mean_log_probability"
    temperature: dict[str, float] = field(default_factory=dict)
    threshold: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_method(self.method)
        for task in [*self.temperature, *self.threshold]:
            if task not in TASKS:
                raise ValueError(f"no task {task!r}: allowed are {TASKS}")
        object.__setattr__(self, "temperature", {**dict.fromkeys(TASKS, 1.0), **self.temperature})
        object.__setattr__(self, "threshold", {**dict.fromkeys(TASKS), **self.threshold})
        for task, temperature in self.temperature.items():
            _check_temperature(temperature, f"temperature of {task}")
        for task, threshold in self.threshold.items():
            if threshold is not None and not 0 <= threshold <= 1:
                raise ValueError(f"threshold of {task} must be None or in 0 to 1, got {threshold}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every task named."""
        return {"method": self.method, "temperature": dict(self.temperature), "threshold": dict(self.threshold)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Aggregation":
        """The inverse of `to_dict`; raises TypeError for a name that is not a field."""
        return cls(**values)


@dataclass(frozen=True)
class Tag:
    """What a track is said to be in one task.

    Args:
        label: the most probable label, or None ("unknown") where its probability is below the threshold.
        confidence: that label's probability, there even when `label` is None.
        top: (label, probability) of the min(5, classes) most probable labels, best first, ties in the order of labels.
    """

    label: str | None
    confidence: float
    top: list[tuple[str, float]]


def track_probabilities(
    logits_SC: np.ndarray, method: Method = "mean_log_probability", temperature: float = 1.0
) -> np.ndarray:
    """One distribution over the classes out of a track's segments.

    Args:
        logits_SC: (S, C) of one track and one task, S >= 1, C >= 1, finite.
        method: "mean_log_probability" renormalises the geometric mean of the segments' probabilities,
            "mean_probability" takes their arithmetic mean, "vote" the share of segments that have the class first
            (the temperature is of no effect then).
        temperature: divisor of the logits, > 0.

    Returns:
        (C,) float64, sums to 1.

    Raises:
        ValueError: a method, shape, temperature or logit that is not allowed.
    """
    _check_method(method)
    _check_temperature(temperature, "temperature")
    logits_SC = np.asarray(logits_SC, np.float64)
    if logits_SC.ndim != 2 or 0 in logits_SC.shape:
        raise ValueError(f"logits must be (segments >= 1, classes >= 1), got shape {logits_SC.shape}")
    if not np.isfinite(logits_SC).all():
        raise ValueError("logits must be finite")
    if method == "mean_log_probability":
        return softmax(log_softmax(logits_SC / temperature, axis=1).mean(0))
    if method == "mean_probability":
        return softmax(logits_SC / temperature, axis=1).mean(0)
    return np.bincount(logits_SC.argmax(1), minlength=logits_SC.shape[1]) / len(logits_SC)


def tag(probabilities_C: np.ndarray, vocabulary: Vocabulary, threshold: float | None = None) -> Tag:
    """The tag of a track out of its (C,) probabilities, in the vocabulary's order.

    Raises:
        ValueError: as many probabilities as labels are not there.
    """
    if np.shape(probabilities_C) != (len(vocabulary),):
        raise ValueError(f"{len(vocabulary)} labels need as many probabilities, got shape {np.shape(probabilities_C)}")
    best = np.argsort(-np.asarray(probabilities_C), kind="stable")[:TOP]
    top = [(vocabulary.labels[i], float(probabilities_C[i])) for i in best]
    label, confidence = top[0]
    return Tag(None if threshold is not None and confidence < threshold else label, confidence, top)


def fit_temperature(
    tracks_SC: Sequence[np.ndarray], targets_N: np.ndarray, method: Method = "mean_log_probability"
) -> float:
    """The temperature that calibrates the tracks' probabilities: the least negative log-likelihood of the targets.

    Only the confidence changes, never the order of the classes within a segment. A few validation tracks that are all
    right would drive the temperature to 0 and every confidence to 1; so, as Platt has it, N tracks are given the
    likelihood (N + 1) / (N + 2) of the target and 1 / (N + 2) of anything else, which vanishes as N grows.

    Args:
        tracks_SC: a track's logits (S, C) each; N of them.
        targets_N: (N,) indices of classes, `MISSING` for tracks to leave out.
        method: as in `track_probabilities`.

    Returns:
        Within `TEMPERATURE_RANGE`, deterministic; 1.0 where nothing is labelled or nothing can change (a vote,
        one class).

    Raises:
        ValueError: as many targets as tracks are not there.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; Platt 1999, "Probabilistic Outputs for SVMs".
    """
    if len(tracks_SC) != len(targets_N):
        raise ValueError(f"{len(tracks_SC)} tracks need as many targets, got {len(targets_N)}")
    labelled = [(logits, int(t)) for logits, t in zip(tracks_SC, targets_N, strict=True) if t != MISSING]
    if not labelled or method == "vote" or labelled[0][0].shape[1] < 2:
        return 1.0
    picked_N = np.array([t for _, t in labelled])
    pooled_NC = np.array([np.asarray(logits, np.float64).mean(0) for logits, _ in labelled])
    else_share = 1 / (len(labelled) + 2)

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        if (
            method == "mean_log_probability"
        ):  # pooling commutes with the temperature: softmax(mean over S of logits / T)
            p_NC = softmax(pooled_NC / temperature, axis=1)
        else:
            p_NC = np.array([track_probabilities(logits, method, temperature) for logits, _ in labelled])
        p_N = np.clip(p_NC[np.arange(len(picked_N)), picked_N], 1e-12, 1 - 1e-12)
        return float(-((1 - else_share) * np.log(p_N) + else_share * np.log1p(-p_N)).mean())

    low, high = np.log(TEMPERATURE_RANGE)
    grid = np.linspace(low, high, 25)  # the smoothed likelihood need not have one valley only
    best = int(np.argmin([loss(x) for x in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    from scipy.optimize import minimize_scalar  # half a second of import that tagging does without

    return float(np.exp(minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4}).x))


def choose_threshold(confidence_N: np.ndarray, correct_N: np.ndarray, precision: float) -> float | None:
    """The smallest confidence from which on tags are right often enough, as seen on validation tracks.

    Args:
        confidence_N: (N,) confidence of the first label, 0 to 1.
        correct_N: (N,) whether that label is the track's; False for a track of a label that is no class.
        precision: the share of right ones asked for among the tags at or above the threshold, above 0 and at most 1.

    Returns:
        One of the confidences, or None where no threshold reaches the precision (and where there are no tracks).

    Raises:
        ValueError: precision is out of range.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision must be above 0 and at most 1, got {precision}")
    confidence_N = np.asarray(confidence_N, np.float64)
    order = np.argsort(-confidence_N, kind="stable")
    ordered, right = confidence_N[order], np.cumsum(np.asarray(correct_N, bool)[order])
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    enough = last_of_ties & (right >= precision * np.arange(1, len(ordered) + 1) - 1e-9)
    return float(ordered[np.flatnonzero(enough)[-1]]) if enough.any() else None


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"no aggregation method {method!r}: allowed are {METHODS}")


def _check_temperature(temperature: float, name: str) -> None:
    if not (0 < temperature < np.inf):
        raise ValueError(f"{name} must be above 0 and finite, got {temperature}")
