"""Time and memory of an evaluation of many classes: python bench/bench_evaluation.py [CLASSES [TRACKS [FOLDER]]]

Scores synthetic embeddings, by default 100,000 tracks of 10,000 artists in 50 languages, renders the report, and prints
seconds, CPU seconds, peak resident memory and the sizes of the files, which it writes to FOLDER. The network does
not run. An artist's songs lie around the artist's mean, and an artist's mean around that of the language; the heads are
those of a linear discriminant analysis. Of the tracks that `choose_sample` draws, 32 segments lie around each song.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.evaluation import predictions
from mtl_core.evaluation.pages import report
from mtl_core.evaluation.pages.task_section import class_curves
from mtl_core.evaluation.predictions import Predictions
from mtl_core.inference.tagging.aggregation import Aggregation
from mtl_core.inference.tagging.heads import Head, mean_embedding
from mtl_core.storage.parquet import to_bytes

LANGUAGES, SEGMENTS, EMBEDDING = 50, 32, 96
ARTIST_SPREAD, SONG_SPREAD, SEGMENT_SPREAD = 0.4, 1.2, 1.0


def synthetic(n_classes: int, n_tracks: int, seed: int = 0) -> Predictions:
    """Predictions of the given size; their first task has `n_classes` classes."""
    rng = np.random.default_rng(seed)
    n_languages = min(LANGUAGES, n_classes)
    language_A = np.arange(n_classes) % n_languages
    artist_N = np.arange(n_tracks) % n_classes
    language_LE = rng.normal(size=(n_languages, EMBEDDING))
    artist_AE = language_LE[language_A] + ARTIST_SPREAD * rng.normal(size=(n_classes, EMBEDDING))
    song_NE = (artist_AE[artist_N] + SONG_SPREAD * rng.normal(size=(n_tracks, EMBEDDING))).astype(np.float32)
    sample_K = predictions.choose_sample(np.full(n_tracks, SEGMENTS), n_classes, seed)
    segments = [
        (song_E + SEGMENT_SPREAD * rng.normal(size=(SEGMENTS, EMBEDDING))).astype(np.float32)
        for song_E in song_NE[sample_K]
    ]
    song_NE[sample_K] = [mean_embedding(x) for x in segments]
    names = {"artist": np.arange(n_classes), "language": np.arange(n_languages)}
    vocabularies = {task: Vocabulary(tuple(f"{task} {c:06}" for c in classes)) for task, classes in names.items()}
    heads = {
        "artist": discriminant(artist_AE, SONG_SPREAD**2),
        "language": discriminant(language_LE, SONG_SPREAD**2 + ARTIST_SPREAD**2),
    }
    tracks = pa.table(
        {
            "track_id": [f"track {i:09}" for i in range(n_tracks)],
            "artist": [vocabularies["artist"].labels[a] for a in artist_N],
            "language": [vocabularies["language"].labels[language_A[a]] for a in artist_N],
        }
    )
    return Predictions(
        tracks=tracks,
        without_sound=tracks.slice(0, 0),
        n_segments=np.full(n_tracks, SEGMENTS),
        embedding_NE=song_NE,
        sample_K=sample_K,
        segments=segments,
        heads=heads,
        vocabularies=vocabularies,
        aggregation=Aggregation(threshold={"artist": 0.5}),
    )


def discriminant(mean_CE: np.ndarray, variance: float) -> Head:
    """The head that gives the probabilities of classes with these means and this variance in each dimension."""
    weight_CE = mean_CE / variance
    return Head(weight_CE.astype(np.float32), (-(weight_CE * mean_CE).sum(1) / 2).astype(np.float32))


class Steps:
    """Prints the time and CPU time since the start at the end of each step, and the peak of memory until then."""

    def __init__(self) -> None:
        self._start, self._start_cpu = time.monotonic(), time.process_time()

    def done(self, name: str) -> None:
        wall, cpu = time.monotonic() - self._start, time.process_time() - self._start_cpu
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:<24}{wall:>7.1f} s  {cpu:>7.1f} CPU s  {peak_gib:.2f} GiB", flush=True)


def main(n_classes: int = 10_000, n_tracks: int = 100_000, folder: str | None = None) -> None:
    predicted = synthetic(n_classes, n_tracks)
    steps = Steps()
    tracks = predictions.track_predictions(predicted)
    steps.done("tags")
    tasks = predictions.score_predictions(predicted, predicted.tracks, resamples=1000, seed=0)
    steps.done("scores and intervals")
    result = {
        "model_id": "synthetic",
        "mels": "none",
        "on": "all",
        "n_tracks": n_tracks,
        "n_segments": int(predicted.n_segments.sum()),
        "without_sound": [],
        "tasks": tasks,
    }
    files = {"report.html": report.render_report(result, tracks, curves=class_curves(predicted, tasks)).encode()}
    steps.done("report")
    files["predictions.parquet"] = to_bytes(predictions.predictions_table(predicted, tracks))
    files["metrics.json"] = json.dumps(result, allow_nan=False).encode()
    steps.done("predictions, metrics")
    print(", ".join(f"{name} {len(content) / 1e6:.1f} MB" for name, content in files.items()))
    print(report.format_report(result))
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)


if __name__ == "__main__":
    numbers = [int(x) for x in sys.argv[1:3]]
    main(*numbers, *sys.argv[3:])
