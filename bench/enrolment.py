"""Enrolment of unknown artists: python bench/enrolment.py MELS MODELS… [--songs 1 2 4]

MODELS are those of `unknown_artists.py`: each was trained without some artists, and without a song of each other one.
The left-out artists are enrolled from some of their songs, all at once, and measured on their other songs, over five
choices of the songs; the old artists are measured on the songs that were kept from the model. Prints top-1 of both,
pooled over the models, with 95 % intervals of a bootstrap over artists.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.dataset.vocabulary import MISSING
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.enrolment import enrol
from mtl_core.pipelines.predict import predict
from mtl_core.storage.location import Location

RESAMPLES = 1000
CHOICES = 5


def choices(songs_of: dict[str, list[int]], n_songs: int) -> Iterator[dict[str, list[int]]]:
    """artist -> the rows of the songs to enrol it from, five times: song i and the next ones, in a circle."""
    for first in range(CHOICES):
        yield {
            artist: [rows[(first + i) % len(rows)] for i in range(n_songs)]
            for artist, rows in songs_of.items()
            if len(rows) > n_songs
        }


def interval(right: list[tuple[str, float]]) -> str:
    """The mean over songs, of (artist, share of right choices), in percent."""
    artist_N, right_N = np.array([artist for artist, _ in right]), np.array([value for _, value in right])
    _, index_N = np.unique(artist_N, return_inverse=True)
    sums_G, counts_G = np.bincount(index_N, right_N), np.bincount(index_N)
    n = len(sums_G)
    drawn_RG = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    low, high = np.quantile((drawn_RG @ sums_G) / (drawn_RG @ counts_G), (0.025, 0.975))
    return f"{100 * right_N.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mels", type=Path)
    arguments.add_argument("models", type=Path, nargs="+")
    arguments.add_argument("--songs", type=int, nargs="+", default=[1, 2, 4])
    flags = arguments.parse_args()
    mels = Location(str(flags.mels.absolute()))
    dataset = open_mel_dataset(mels)
    before: list[tuple[str, float]] = []
    old: dict[int, list[tuple[str, float]]] = {n: [] for n in flags.songs}
    new: dict[int, list[tuple[str, float]]] = {n: [] for n in flags.songs}
    for number, path in enumerate(flags.models):
        model = Location(str(path.absolute()))
        artifact = artifacts.load_artifact(model)
        predicted, _ = predict(artifact, dataset, model, mels, on="new")
        embedding_NE, artists = predicted.embedding_NE, predicted.tracks["artist"].to_pylist()
        known_N = predicted.vocabularies["artist"].encode(artists) != MISSING
        songs_of: dict[str, list[int]] = {}
        for row in np.flatnonzero(~known_N).tolist():
            songs_of.setdefault(artists[row], []).append(row)

        def right_of(model_with: artifacts.Artifact, rows: list[int], artists=artists, embedding_NE=embedding_NE):
            labels = model_with.vocabularies["artist"].labels
            best = model_with.heads["artist"].all_logits(embedding_NE[rows]).argmax(1)
            return [float(labels[i] == artists[row]) for i, row in zip(best, rows, strict=True)]

        of_old = np.flatnonzero(known_N).tolist()
        before += [
            (f"{number} {artists[row]}", right) for row, right in zip(of_old, right_of(artifact, of_old), strict=True)
        ]
        for n in flags.songs:
            old_N, new_N, tested_N = np.zeros(len(artists)), np.zeros(len(artists)), np.zeros(len(artists))
            for chosen in choices(songs_of, n):
                changed = enrol(artifact, "artist", {artist: embedding_NE[rows] for artist, rows in chosen.items()})
                others = [row for artist, rows in chosen.items() for row in songs_of[artist] if row not in rows]
                new_N[others] += right_of(changed, others)
                tested_N[others] += 1
                old_N[of_old] += right_of(changed, of_old)
            old[n] += [(f"{number} {artists[row]}", old_N[row] / CHOICES) for row in of_old]
            new[n] += [
                (f"{number} {artists[row]}", new_N[row] / tested_N[row]) for row in np.flatnonzero(tested_N).tolist()
            ]
    print(f"{len(flags.models)} models, {len(before)} songs of their own artists\n")
    print("| enrolled from | new artists' other songs, top-1 | own artists' songs, top-1 |\n| --- | ---: | ---: |")
    print(f"| nothing | | {interval(before)} |")
    for n in flags.songs:
        print(f"| {n} song{'s' if n > 1 else ''} each | {interval(new[n])} | {interval(old[n])} |")


if __name__ == "__main__":
    main()
