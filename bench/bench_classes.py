"""What a track's tag costs by the number of artists: python bench/bench_classes.py

From the segments' embeddings to the row of the tags table, with a network that costs nothing, 17 languages and 32
segments a track. CPU milliseconds a track, medians of interleaved repeats, on one thread.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy is imported

import statistics
import time

import numpy as np

from mtl_core.audio.front_end import FrontEnd, Segments
from mtl_core.audio.track_reader import Track
from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.tagger import Tagger

ARTISTS = (68, 10_000, 100_000)
SEGMENTS, TRACKS, REPEATS = 32, 50, 7
RNG = np.random.default_rng(0)


class FreeEngine:
    """Embeddings at no cost."""

    def infer(self, mel_STF: np.ndarray) -> np.ndarray:
        return np.ones((len(mel_STF), 96), np.float32)


def tagger(artists: int) -> Tagger:
    counts = {"artist": artists, "language": 17}
    heads = {
        task: Head(RNG.normal(size=(n, 96)).astype(np.float32), np.zeros(n, np.float32)) for task, n in counts.items()
    }
    vocabularies = {task: Vocabulary(tuple(f"{i:06}" for i in range(n))) for task, n in counts.items()}
    chosen = Aggregation(score={"artist": "cosine"}, threshold={"artist": 0.5, "language": 0.5})
    return Tagger(FreeEngine(), FrontEnd(), heads, vocabularies, chosen)


def main() -> None:
    segments = Segments(mel_STF=np.ones((SEGMENTS, 187, 96), np.float32), start_s=3.0 * np.arange(SEGMENTS))
    track = Track({"track_id": "a", "uri": "a"}, segments, 96.0)
    taggers = {artists: tagger(artists) for artists in ARTISTS}
    times: dict[int, list[float]] = {artists: [] for artists in ARTISTS}
    for _ in range(REPEATS):
        for artists, one in taggers.items():
            began = time.process_time()
            for _ in range(TRACKS):
                one.tag([track], model_id="m", run_id="r")
            times[artists].append(1e3 * (time.process_time() - began) / TRACKS)
    first = statistics.median(times[ARTISTS[0]])
    for artists, values in times.items():
        median = statistics.median(values)
        print(f"{artists:>7,} artists: {median:.2f} ms a track, {median - first:+.2f}")


if __name__ == "__main__":
    main()
