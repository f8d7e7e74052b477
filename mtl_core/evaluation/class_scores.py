"""Class scores: the probabilities of samples, as an array or by blocks from embeddings and a head.

10,000 classes by 100,000 samples do not fit into memory. So scores are read by rows (all classes of some samples) or by
classes (some classes of all samples), and both kinds of block are small.

Legend: N samples (tracks or segments), C classes, B classes of a block, E embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.softmax import probabilities

ARRAY_VALUES = 10_000_000  # N x C up to which the probabilities are one array
BLOCK_VALUES = 4_000_000  # of a block


class ClassScores(Protocol):
    """The probabilities of N samples over C classes."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, C)."""

    def rows(self, first: int, end: int) -> np.ndarray:
        """(end - first, C) probabilities of some samples."""

    def of_classes(self, classes_B: np.ndarray) -> np.ndarray:
        """(B, N) values in the order of the probabilities, also between classes; the same bits in every call."""

    def take(self, index_K: np.ndarray) -> "ClassScores":
        """The scores of the samples (K,), by their positions."""


@dataclass(frozen=True)
class ArrayScores:
    """Probabilities (N, C) in memory."""

    p_NC: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(N, C)."""
        return self.p_NC.shape[0], self.p_NC.shape[1]

    def rows(self, first: int, end: int) -> np.ndarray:
        """(end - first, C) probabilities."""
        return self.p_NC[first:end]

    def of_classes(self, classes_B: np.ndarray) -> np.ndarray:
        """(B, N) probabilities."""
        return np.ascontiguousarray(self.p_NC[:, classes_B].T)

    def take(self, index_K: np.ndarray) -> "ArrayScores":
        """The scores of the samples (K,), by their positions."""
        return ArrayScores(self.p_NC[index_K])


@dataclass(frozen=True)
class HeadScores:
    """The probabilities that a head gives at a temperature to embeddings (N, E), computed by blocks."""

    embedding_NE: np.ndarray
    head: Head
    temperature: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(N, C)."""
        return len(self.embedding_NE), self.head.n_classes

    def rows(self, first: int, end: int) -> np.ndarray:
        """(end - first, C) probabilities, within rounding those of tagging."""
        return probabilities(self.head.all_logits(self.embedding_NE[first:end]), self.temperature)

    def of_classes(self, classes_B: np.ndarray) -> np.ndarray:
        """(B, N) float32 log-probabilities, which do not become 0 as small probabilities do."""
        head = Head(self.head.weight_CE[classes_B], self.head.bias_C[classes_B])
        scaled_NB = head.all_logits(self.embedding_NE) / np.float32(self.temperature)
        return np.ascontiguousarray((scaled_NB - self._log_sums[:, None]).T)

    def take(self, index_K: np.ndarray) -> "HeadScores":
        """The scores of the samples (K,), by their positions."""
        return HeadScores(self.embedding_NE[index_K], self.head, self.temperature)

    @cached_property
    def _log_sums(self) -> np.ndarray:
        """(N,) float32, the logarithm of the sum of exp(logit / temperature) over all classes."""
        sums = [np.empty(0, np.float32)]
        for first, end in row_blocks(*self.shape):
            scaled = self.head.all_logits(self.embedding_NE[first:end]) / np.float32(self.temperature)
            largest = scaled.max(1)
            total = np.exp(scaled - largest[:, None]).sum(1, dtype=np.float64)
            sums.append((largest + np.log(total)).astype(np.float32))
        return np.concatenate(sums)


def head_scores(embedding_NE: np.ndarray, head: Head, temperature: float = 1.0) -> ClassScores:
    """The scores that a head gives to embeddings: an array up to `ARRAY_VALUES`, and computed by blocks above."""
    scores = HeadScores(embedding_NE, head, temperature)
    n, n_classes = scores.shape
    return ArrayScores(scores.rows(0, n)) if n * n_classes <= ARRAY_VALUES else scores


def row_blocks(n: int, n_classes: int) -> Iterator[tuple[int, int]]:
    """(first, end) of blocks of rows with `BLOCK_VALUES` or fewer values, at least one row."""
    step = max(1, BLOCK_VALUES // n_classes)
    return ((first, min(first + step, n)) for first in range(0, n, step))


def class_blocks(classes: np.ndarray, n: int) -> list[np.ndarray]:
    """Blocks of classes with `BLOCK_VALUES` or fewer values of n samples, at least one class."""
    step = max(1, BLOCK_VALUES // max(n, 1))
    return [classes[first : first + step] for first in range(0, len(classes), step)]


def labelled(scores: ClassScores, targets_N: np.ndarray) -> np.ndarray:
    """(N,) whether each sample has a target.

    Raises:
        ValueError: the shapes do not fit, or a target is not a class.
    """
    targets_N, shape = np.asarray(targets_N), scores.shape
    if targets_N.shape != shape[:1] or shape[1] < 1:
        raise ValueError(f"probabilities (N, C) and targets (N,) do not fit: {shape} and {targets_N.shape}")
    if len(targets_N) and not (targets_N.min() >= MISSING and targets_N.max() < shape[1]):
        raise ValueError(
            f"targets must be {MISSING} (missing) to {shape[1] - 1}, got {targets_N.min()} to {targets_N.max()}"
        )
    return targets_N != MISSING
