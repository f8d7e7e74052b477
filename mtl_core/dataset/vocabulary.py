"""Labels: the classes of a task, and the index of each.

A missing label is `MISSING` (-1) as an index and None as a name; it never is a class.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

TASKS = ("artist", "language")
MISSING = -1


@dataclass(frozen=True)
class Vocabulary:
    """The classes of one task, sorted: a label's position is its index.

    Raises:
        ValueError: labels are unsorted, repeated or empty.
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if list(self.labels) != sorted(set(self.labels)) or "" in self.labels:
            raise ValueError(f"labels must be sorted, distinct and not empty, got {self.labels}")

    @classmethod
    def of(cls, labels: Iterable[str | None]) -> "Vocabulary":
        """The vocabulary of all labels that are there (not None)."""
        return cls(tuple(sorted({label for label in labels if label is not None})))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.labels)

    def encode(self, labels: Sequence[str | None]) -> np.ndarray:
        """Indices (N,) int64 of labels; `MISSING` for None and for a label that is not a class."""
        return np.array([MISSING if label is None else self._index.get(label, MISSING) for label in labels], np.int64)
