"""Find neighbours: a table of tags -> each track's nearest tracks by embedding, and pairs that are likely the same.

    OUT/neighbours.parquet   a row a track: its neighbours, and for an unknown track the artists that it may be by
    OUT/duplicates.parquet   a row a pair of tracks that sound the same

It runs in one process. Memory is 8 bytes for each of the 96 values of a track, and what a block of rows takes.

Legend: N tracks, B tracks of a block, K neighbours, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.inference.neighbours import load_faiss, nearest
from mtl_core.storage.checks import check_reachable, check_writable
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.tables.embeddings import read_newest_trunk

MAX_CANDIDATES = 3  # artists of an unknown track

_NEIGHBOUR = pa.struct([("track_id", pa.string()), ("similarity", pa.float32())])
_CANDIDATE = pa.struct([("artist", pa.string()), ("similarity", pa.float32()), ("neighbours", pa.int32())])
NEIGHBOURS = pa.schema(
    [
        ("track_id", pa.string()),
        ("artist", pa.string()),  # the tag; null = unknown
        ("neighbours", pa.list_(_NEIGHBOUR)),  # nearest first; similarity is the cosine, -1 to 1
        # of an unknown track: the artists of its neighbours, by their nearest track; null for a track with a name
        ("candidates", pa.list_(_CANDIDATE)),
    ]
)
DUPLICATES = pa.schema(
    [
        ("track_id", pa.string()),
        ("other_track_id", pa.string()),  # after track_id in the order of strings
        ("similarity", pa.float32()),
        ("duration_difference_s", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class NeighbourOptions:
    """What counts as near.

    Raises:
        ValueError: a value is not allowed.
    """

    k: int = 10
    """Neighbours of a track, 1 to 1000."""
    duplicate_similarity: float = 0.97
    """Cosine from which two tracks of equal length count as the same recording, above 0 to 1."""
    duplicate_duration_s: float = 2.0
    """Largest difference of their lengths, 0 or more."""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 1000:
            raise ValueError(f"k must be 1 to 1000, got {self.k}")
        if not 0 < self.duplicate_similarity <= 1:
            raise ValueError(f"duplicate-similarity must be above 0 and at most 1, got {self.duplicate_similarity:g}")
        if not self.duplicate_duration_s >= 0:
            raise ValueError(f"duplicate-duration-s must be 0 or more, got {self.duplicate_duration_s:g}")


def find_neighbours(tags: Location, out: Location, options: NeighbourOptions) -> str:
    """Write the neighbours of all tracks whose embeddings are of the newest trunk.

    Args:
        tags: OUT of tag_catalogue.
        out: folder of the two files.
        options: what counts as near.

    Returns:
        A summary for people, with how many rows were left out and why.

    Raises:
        InputError: there is no table of tags with a trunk, or faiss is not installed.
    """
    load_faiss()
    check_reachable(tags)
    check_writable(out)
    embeddings = read_newest_trunk(tags)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    with (out / "neighbours.parquet").write_via() as path, pq.ParquetWriter(path, NEIGHBOURS) as writer:
        for first, number_BK, cosine_BK in nearest(embeddings.embedding_NE, options.k):
            writer.write_table(_rows(embeddings.tracks, first, number_BK, cosine_BK))
            pairs.append(_pairs(embeddings.tracks, first, number_BK, cosine_BK, options))
    duplicates = _duplicates(embeddings.tracks, pairs)
    (out / "duplicates.parquet").write_bytes(to_bytes(duplicates))
    return (
        f"{len(embeddings.tracks):,} tracks of the trunk {embeddings.trunk_id}; left out: "
        f"{embeddings.n_without_sound:,} without sound, {embeddings.n_of_other_trunks:,} of other trunks\n"
        f"{len(duplicates):,} pairs are likely the same recording\n-> {out}"
    )


def _rows(tracks: pa.Table, first: int, number_BK: np.ndarray, cosine_BK: np.ndarray) -> pa.Table:
    """The rows of `NEIGHBOURS` of a block."""
    n = len(number_BK)
    exists_BK = number_BK >= 0
    offsets = np.concatenate(([0], np.cumsum(exists_BK.sum(1)))).astype(np.int32)
    near = pa.array(number_BK[exists_BK])
    neighbours = pa.StructArray.from_arrays(
        [tracks["track_id"].take(near).combine_chunks(), pa.array(cosine_BK[exists_BK])], fields=list(_NEIGHBOUR)
    )
    artists = tracks["artist"].slice(first, n)
    names = tracks["artist"].take(near).to_pylist()
    candidates = [
        None if artist is not None else _candidates(names[start:end], cosine_BK[row])
        for row, (artist, start, end) in enumerate(zip(artists.to_pylist(), offsets, offsets[1:], strict=False))
    ]
    return pa.table(
        [
            tracks["track_id"].slice(first, n),
            artists,
            pa.ListArray.from_arrays(offsets, neighbours),
            pa.array(candidates, NEIGHBOURS.field("candidates").type),
        ],
        schema=NEIGHBOURS,
    )


def _candidates(artists_K: Sequence[str | None], cosine_K: np.ndarray) -> list[dict[str, Any]]:
    """The artists of a track's neighbours, nearest first."""
    found: dict[str, dict[str, Any]] = {}
    for artist, cosine in zip(artists_K, cosine_K.tolist(), strict=False):  # the cosines are in falling order
        if artist is not None:
            found.setdefault(artist, {"artist": artist, "similarity": cosine, "neighbours": 0})["neighbours"] += 1
    return list(found.values())[:MAX_CANDIDATES]


def _pairs(
    tracks: pa.Table, first: int, number_BK: np.ndarray, cosine_BK: np.ndarray, options: NeighbourOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) the numbers of likely duplicates, the smaller one first, and their cosines (P,)."""
    duration_N = tracks["duration_s"].to_numpy()
    own_BK = np.broadcast_to(np.arange(first, first + len(number_BK))[:, None], number_BK.shape)
    near_BK = (number_BK >= 0) & (cosine_BK >= options.duplicate_similarity)
    near_BK &= np.abs(duration_N[own_BK] - duration_N[number_BK]) <= options.duplicate_duration_s
    return np.sort(np.stack([own_BK[near_BK], number_BK[near_BK]], 1), 1), cosine_BK[near_BK]


def _duplicates(tracks: pa.Table, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> pa.Table:
    """The rows of `DUPLICATES`: each pair once."""
    numbers_P2, rows = np.unique(np.concatenate([of for of, _ in pairs]), axis=0, return_index=True)
    cosine_P = np.concatenate([cosine for _, cosine in pairs])[rows]
    ids = [tracks["track_id"].take(pa.array(numbers_P2[:, i])).to_pylist() for i in (0, 1)]
    ordered = [sorted(pair) for pair in zip(*ids, strict=True)]
    duration_N = tracks["duration_s"].to_numpy()
    difference_P = np.abs(duration_N[numbers_P2[:, 0]] - duration_N[numbers_P2[:, 1]])
    columns = [[a for a, _ in ordered], [b for _, b in ordered], cosine_P, difference_P]
    return pa.table(columns, schema=DUPLICATES).sort_by([("track_id", "ascending"), ("other_track_id", "ascending")])
