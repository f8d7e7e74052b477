"""Neighbours of a whole table: python bench/bench_neighbours.py [MILLIONS [FOLDER]]

Makes a table of MILLIONS million tracks (default 1) of 20,000 artists a million, whose embeddings lie around their
artist's as those of `best` do: two parts, each a shortened unit vector. Runs `find_neighbours --k 10`. Prints wall
and CPU seconds, peak memory, and the share of the true neighbours of 10,000 tracks (by comparison with all) that were
found. A FOLDER is kept and used again.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_tables import commit_rows, tag_rows
from process_tree import adopt_orphans, run

from mtl_core.schema import TAGS
from mtl_core.storage.location import Location
from mtl_core.tables.embeddings import read_newest_trunk

JOB = Path(__file__).parents[1] / "jobs" / "find_neighbours.py"
PARTS = {"artist": 80, "language": 16}
QUERIES, K = 10_000, 10
WITHIN = 0.6  # the length of what a track adds to its artist's vector of length 1


def rows(n: int) -> Iterator[pa.Table]:
    """Rows of tags with embeddings around those of artists."""
    rng = np.random.default_rng(0)
    n_artists = max(1, n // 50)
    centres = {task: unit(rng.normal(size=(n_artists if task == "artist" else 17, size)))
               for task, size in PARTS.items()}  # fmt: skip
    for table in tag_rows(0, n, trunk_id="t"):
        artist_B = rng.integers(0, n_artists, len(table))
        parts = []
        for (task, size), centre in zip(PARTS.items(), centres.values(), strict=True):
            of_track = unit(rng.normal(size=(len(table), size)))
            parts.append(unit(centre[artist_B if task == "artist" else artist_B % 17] + WITHIN * of_track) * 0.8)
        values = np.concatenate(parts, 1).astype(np.float32)
        offsets = np.arange(0, values.size + 1, 96, np.int32)
        embedding = pa.ListArray.from_arrays(offsets, values.reshape(-1))
        yield table.set_column(TAGS.names.index("embedding"), TAGS.field("embedding"), embedding)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def recall(at: Location) -> float:
    """The share of the true neighbours of some tracks that the job has written."""
    embeddings = read_newest_trunk(at / "out")
    embedding_NE = unit(embeddings.embedding_NE)
    table = pq.read_table(at.path + "/near/neighbours.parquet", columns=["track_id", "neighbours"])
    ids = embeddings.tracks["track_id"].to_pylist()
    rng = np.random.default_rng(1)
    shares = []
    for rows_B in np.array_split(rng.choice(len(ids), min(QUERIES, len(ids)), replace=False), 100):
        cosine_BN = embedding_NE[rows_B] @ embedding_NE.T
        cosine_BN[np.arange(len(rows_B)), rows_B] = -2
        best_BK = np.argpartition(-cosine_BN, K, axis=1)[:, :K]
        for best_K, found in zip(best_BK, table.take(pa.array(rows_B)).to_pylist(), strict=True):
            near = {neighbour["track_id"] for neighbour in found["neighbours"]}
            shares.append(len(near & {ids[i] for i in best_K}) / K)
    return float(np.mean(shares))


def main(millions: float, folder: Path) -> None:
    at, n = Location(str(folder)), int(millions * 1_000_000)
    if not (at / "out" / "tags").exists():
        commit_rows(at / "out", rows(n), run_id="night-0")
    flags = ("--tags", str(folder / "out"), "--out", str(folder / "near"), "--k", str(K))
    usage = run([sys.executable, str(JOB), *flags], OMP_NUM_THREADS="2")
    print(usage.stdout)
    print(f"{n:,} tracks: {usage.wall_s:.0f} s, {usage.cpu_s:.0f} CPU s, {usage.largest_mib / 1024:.2f} GiB")
    print(f"recall@{K} of {min(QUERIES, n):,} tracks: {recall(at):.4f}")


if __name__ == "__main__":
    adopt_orphans()
    given = dict(enumerate(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as temporary:
        main(float(given.get(0, 1)), Path(given.get(1, temporary)))
