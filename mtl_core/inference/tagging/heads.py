"""Heads: the mean embedding of a track -> its logits in each task.

A head is linear. So the mean of the segments' logits is the head's output for the mean of their embeddings, and a tag
needs nothing but the 96 values that the tags table holds. Training, evaluation and tagging all use this module.

Legend: N tracks, E embedding (96), C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Head:
    """The linear head of one task: weights (C, E) and biases (C,), float32. Raises ValueError for other shapes."""

    weight_CE: np.ndarray
    bias_C: np.ndarray

    def __post_init__(self) -> None:
        if self.weight_CE.ndim != 2 or self.bias_C.shape != self.weight_CE.shape[:1]:
            raise ValueError(f"weights (C, E) and biases (C,) do not fit: {self.weight_CE.shape}, {self.bias_C.shape}")

    @property
    def n_classes(self) -> int:
        return len(self.bias_C)

    def logits(self, embedding_E: np.ndarray) -> np.ndarray:
        """(C,) float32 of one track; the same bits whatever other tracks are scored with it."""
        return embedding_E @ self._by_value + self.bias_C

    def all_logits(self, embedding_NE: np.ndarray, first: int = 0, end: int | None = None) -> np.ndarray:
        """(N, end - first) float32 of many tracks, of some of the classes: within rounding those of `logits`."""
        return embedding_NE @ self.weight_CE[first:end].T + self.bias_C[first:end]

    def lengths(self, embedding_NE: np.ndarray) -> np.ndarray:
        """(N,) float64, the length of embeddings (N, E) in the values that the head uses."""
        return np.linalg.norm(np.asarray(embedding_NE, np.float64)[:, self.used_values], axis=1)

    @cached_property
    def _by_value(self) -> np.ndarray:
        """In the order in which a product with one vector takes two thirds of the time."""
        return np.ascontiguousarray(self.weight_CE.T)

    @cached_property
    def used_values(self) -> np.ndarray:
        """(E,) which values of the embedding the head uses."""
        return (self.weight_CE != 0).any(0)


def read_heads(weights: Mapping[str, np.ndarray], tasks: Mapping[str, object]) -> dict[str, Head]:
    """The head of each task among the weights of a model, by the names that `cnn.MultitaskCNN` gives them."""
    return {
        task: Head(weights[f"classifiers.{task}.weight"], weights[f"classifiers.{task}.bias"].reshape(-1))
        for task in tasks
    }


def is_of_head(name: str) -> bool:
    """Whether a weight of a model, by its name, is one of a head."""
    return name.startswith("classifiers.")


def mean_embedding(embedding_SE: np.ndarray) -> np.ndarray:
    """(E,) float32, the mean over a track's segments (S, E), S >= 1, computed in float64."""
    return embedding_SE.mean(0, dtype=np.float64).astype(np.float32)
