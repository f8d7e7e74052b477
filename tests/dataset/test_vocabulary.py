"""The classes of a task and their indices."""

import numpy as np
import pytest

from mtl_core.dataset.vocabulary import MISSING, Vocabulary


def test_the_labels_are_sorted_and_distinct_and_their_positions_are_the_indices() -> None:
    vocabulary = Vocabulary.of(["en", None, "de", "en", "Ä"])
    assert vocabulary.labels == ("de", "en", "Ä") and len(vocabulary) == 3
    indices = vocabulary.encode(["Ä", "de", "en"])
    np.testing.assert_array_equal(indices, [2, 0, 1])
    assert indices.dtype == np.int64
    assert [vocabulary.labels[i] for i in indices] == ["Ä", "de", "en"]


def test_none_and_labels_that_are_not_in_the_vocabulary_are_missing() -> None:
    assert Vocabulary(("de",)).encode([None, "fr", "DE", "de"]).tolist() == [MISSING, MISSING, MISSING, 0]
    assert Vocabulary.of([None]).encode(["de"]).tolist() == [MISSING]
    assert Vocabulary.of([]).encode([]).shape == (0,)


@pytest.mark.parametrize("labels", [("b", "a"), ("a", "a"), ("", "a")])
def test_labels_that_are_not_sorted_or_distinct_or_are_empty_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="sorted, distinct and not empty"):
        Vocabulary(labels)
