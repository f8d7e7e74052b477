"""Vocabulary: the classes of a task and their indices.

A missing label is None as a name and `MISSING` (-1) as an index. It is never a class.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

TASKS = ("artist", "language")
MISSING = -1
#: ISO 639-2's code for "no linguistic content": the label of an instrumental. It is no class.
INSTRUMENTAL = "zxx"


@dataclass(frozen=True)
class Vocabulary:
    """The labels of one task; the index of a class is the position of its label.

    Raises ValueError where the labels are not sorted, or one is empty or occurs twice.
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if list(self.labels) != sorted(set(self.labels)) or "" in self.labels:
            raise ValueError(f"labels must be sorted, distinct and not empty, got {self.labels}")

    @classmethod
    def of(cls, labels: Iterable[str | None]) -> "Vocabulary":
        """The vocabulary of all labels that are not None."""
        return cls(tuple(sorted({label for label in labels if label is not None})))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.labels)

    def encode(self, labels: Sequence[str | None]) -> np.ndarray:
        """Indices (N,) int64 of labels; `MISSING` for None and for labels that are not in the vocabulary."""
        return np.array([MISSING if label is None else self._index.get(label, MISSING) for label in labels], np.int64)


def class_labels(task: str, labels: Iterable[str | None]) -> list[str | None]:
    """The labels with None for those that are no class: the language of instrumentals."""
    return [None if task == "language" and label == INSTRUMENTAL else label for label in labels]
