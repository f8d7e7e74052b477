"""Neighbours: the nearest vectors of each vector, by cosine. faiss does the work.

Up to `EXACT_UP_TO` vectors all pairs are compared. Of more, the vectors are put into cells, and those in the nearest
`CELLS_SEARCHED` cells are compared (an inverted file).

Source: Douze et al. 2024, "The Faiss library". Legend: N vectors, E values, K neighbours.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mtl_core.errors import InputError

EXACT_UP_TO = 20_000
CELLS_SEARCHED = 32
_CELLS_PER_ROOT = 4  # cells of an index of N vectors, times the root of N
_TRAINING_VECTORS_PER_CELL = 40  # that the cells are made of, drawn at random
_BLOCK = 16_384  # queries at a time


def load_faiss() -> Any:
    """The module faiss. Raises InputError where it is not installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        raise InputError("neighbours need faiss: pip install 'mtl-core[neighbours]'") from None
    return faiss


def nearest(embedding_NE: np.ndarray, k: int, *, seed: int = 0) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The k nearest others of each vector, block by block.

    Args:
        embedding_NE: float32, N >= 1; they are cut down to unit length in place.
        k: 1 or more.
        seed: of the vectors that the cells are made of.

    Yields:
        The number of a block's first vector; the numbers of the neighbours (B, K) int64, nearest first, -1 where there
        are no more; and their cosines (B, K) float32.

    Raises:
        InputError: faiss is not installed.
    """
    faiss = load_faiss()
    faiss.normalize_L2(embedding_NE)
    n, size = embedding_NE.shape
    index = faiss.IndexFlatIP(size)
    if n > EXACT_UP_TO:
        n_cells = round(_CELLS_PER_ROOT * np.sqrt(n))
        cells = faiss.IndexIVFFlat(index, size, n_cells, faiss.METRIC_INNER_PRODUCT)
        cells.cp.seed = seed + 1
        cells.nprobe = min(CELLS_SEARCHED, n_cells)
        sample = np.random.default_rng(seed).choice(n, min(n, _TRAINING_VECTORS_PER_CELL * n_cells), replace=False)
        cells.train(embedding_NE[np.sort(sample)])
        index = cells
    index.add(embedding_NE)
    for first in range(0, n, _BLOCK):
        cosine_BK, number_BK = index.search(embedding_NE[first : first + _BLOCK], k + 1)
        yield first, *_without_itself(first, number_BK, cosine_BK)


def _without_itself(first: int, number_BK: np.ndarray, cosine_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours less the vector itself, which is not always the first: others can be equal."""
    own_B1 = np.arange(first, first + len(number_BK))[:, None]
    is_own_BK = number_BK == own_B1
    is_own_BK[~is_own_BK.any(1), -1] = True
    shape = (len(number_BK), number_BK.shape[1] - 1)
    return number_BK[~is_own_BK].reshape(shape), cosine_BK[~is_own_BK].reshape(shape)
