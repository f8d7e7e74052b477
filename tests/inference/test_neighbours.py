"""The neighbours of faiss are those of a whole comparison: all of them up to a size, nearly all beyond."""

import numpy as np
import pytest

from mtl_core.inference import neighbours


def clusters(n: int, groups: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centre_GE = rng.normal(size=(groups, 96))
    return (centre_GE[np.arange(n) % groups] + 0.5 * rng.normal(size=(n, 96))).astype(np.float32)


def found(embedding_NE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(neighbours.nearest(embedding_NE.copy(), k))
    assert [first for first, *_ in blocks] == list(range(0, len(embedding_NE), neighbours._BLOCK))
    return np.concatenate([of[1] for of in blocks]), np.concatenate([of[2] for of in blocks])


def exact(embedding_NE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    unit_NE = embedding_NE / np.linalg.norm(embedding_NE, axis=1, keepdims=True)
    cosine_NN = unit_NE @ unit_NE.T
    np.fill_diagonal(cosine_NN, -2)
    order_NK = np.argsort(-cosine_NN, axis=1)[:, :k]
    return order_NK, np.take_along_axis(cosine_NN, order_NK, 1)


def test_few_vectors_are_compared_with_all(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    embedding_NE = clusters(300, 20)
    number_NK, cosine_NK = found(embedding_NE, 7)
    expected_NK, cosines_NK = exact(embedding_NE, 7)
    np.testing.assert_array_equal(number_NK, expected_NK)
    np.testing.assert_allclose(cosine_NK, cosines_NK, atol=1e-5)


def test_of_many_vectors_nearly_all_neighbours_are_found(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 1000)
    embedding_NE = clusters(6000, 150)
    number_NK, _ = found(embedding_NE, 10)
    expected_NK, _ = exact(embedding_NE, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(number_NK, expected_NK, strict=True)])
    assert recall > 0.98
    assert not (number_NK == np.arange(6000)[:, None]).any(), "a vector is not its own neighbour"


@pytest.mark.parametrize("n", [1, 3])
def test_where_there_are_fewer_vectors_than_neighbours_the_rest_is_none(n):
    number_NK, _ = found(clusters(n, 2), 5)
    assert number_NK.shape == (n, 5)
    assert ((number_NK >= 0).sum(1) == n - 1).all()


def test_equal_vectors_are_each_others_neighbours():
    embedding_NE = np.repeat(clusters(4, 4), 6, axis=0)
    number_NK, cosine_NK = found(embedding_NE, 5)
    for row, others in enumerate(number_NK):
        assert set(others) == {6 * (row // 6) + i for i in range(6)} - {row}
    np.testing.assert_allclose(cosine_NK, 1, atol=1e-5)
