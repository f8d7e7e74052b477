"""Aggregation: a track's segments -> one probability distribution a task, and the tag that follows from it.

Probabilities are float64 and sum to 1. Logits are the network's, of any float type. Tagging, calibration and evaluation
all call these functions, so what is measured is what is written. Legend: S segments, C classes.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax, softmax

from mtl_core.dataset.vocabulary import TASKS, Vocabulary

#: The only pooling method. Artifacts name it.
METHOD = "mean_log_probability"
TOP_LABELS = 5


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How segments become a tag; `asdict` gives its JSON values, which an artifact holds.

    Raises ValueError where a method, task, temperature or threshold is not allowed.
    """

    method: str = METHOD
    #: Task -> divisor of the logits, above 0. A task that is left out has 1.
    temperature: dict[str, float] = field(default_factory=dict)
    #: Task -> confidence, 0 to 1, below which the label is null. None, or left out: never null.
    threshold: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method != METHOD:
            raise ValueError(f"unknown aggregation method {self.method!r}: allowed is {METHOD!r}")
        for task in [*self.temperature, *self.threshold]:
            if task not in TASKS:
                raise ValueError(f"unknown task {task!r}: allowed are {TASKS}")
        object.__setattr__(self, "temperature", {**dict.fromkeys(TASKS, 1.0), **self.temperature})
        object.__setattr__(self, "threshold", {**dict.fromkeys(TASKS), **self.threshold})
        for task, temperature in self.temperature.items():
            _check_temperature(temperature, f"temperature of {task}")
        for task, threshold in self.threshold.items():
            if threshold is not None and not 0 <= threshold <= 1:
                raise ValueError(f"threshold of {task} must be None or in 0 to 1, got {threshold}")


@dataclass(frozen=True)
class Tag:
    """A track's tag in one task."""

    label: str | None  # the most probable label, or None ("unknown") where its probability is below the threshold
    confidence: float  # the probability of the most probable label, also where `label` is None
    top: list[tuple[str, float]]  # the min(5, classes) most probable labels, best first, ties in label order


def track_probabilities(logits_SC: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Pool a track's segments: (C,) probabilities, the geometric mean of the segments', renormalised.

    Args:
        logits_SC: (S, C) of one track and one task, S >= 1, C >= 1, finite.
        temperature: divisor of the logits, above 0.

    Raises:
        ValueError: a shape, temperature or logit is not allowed.
    """
    _check_temperature(temperature, "temperature")
    logits_SC = np.asarray(logits_SC, np.float64)
    if logits_SC.ndim != 2 or 0 in logits_SC.shape:
        raise ValueError(f"logits must be (segments >= 1, classes >= 1), got shape {logits_SC.shape}")
    if not np.isfinite(logits_SC).all():
        raise ValueError("logits must be finite")
    return softmax(log_softmax(logits_SC / temperature, axis=1).mean(0))


def tag(probabilities_C: np.ndarray, vocabulary: Vocabulary, threshold: float | None = None) -> Tag:
    """A track's tag from its (C,) probabilities in the vocabulary's order, see `Aggregation.threshold`.

    Raises ValueError where the numbers of probabilities and labels differ.
    """
    if np.shape(probabilities_C) != (len(vocabulary),):
        raise ValueError(f"{len(vocabulary)} labels need as many probabilities, got shape {np.shape(probabilities_C)}")
    best = np.argsort(-np.asarray(probabilities_C), kind="stable")[:TOP_LABELS]
    top = [(vocabulary.labels[i], float(probabilities_C[i])) for i in best]
    label, confidence = top[0]
    return Tag(None if threshold is not None and confidence < threshold else label, confidence, top)


def _check_temperature(temperature: float, name: str) -> None:
    if not (0 < temperature < np.inf):
        raise ValueError(f"{name} must be above 0 and finite, got {temperature}")
