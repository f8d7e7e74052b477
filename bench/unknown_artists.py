"""Unknown artists, nested: python bench/unknown_artists.py MELS OUT [--sets 4] [--left-out 14] [--folds 3] [--epochs E]

A model is trained with `--split crossfit` for each set of left-out artists. Its threshold comes from its own folds, so
from other artists and other songs. It is measured on tracks that it never saw: all songs of the left-out artists
(unknown), and one song of each other artist (known). The tracks of all sets are pooled; intervals are of a bootstrap
over artists. Prints AUROC by score, and precision and coverage at the stated precision for unknown shares of .5, .9 and
.99, each with a threshold for this share; once with the model's own score, once with the highest probability.

Stopped, the same command continues: a model that is there is not trained again. Most of its time is sets x (folds + 1)
trainings.
"""

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mtl_core.dataset.mel_dataset import MelDataset, open_mel_dataset
from mtl_core.dataset.splits import split
from mtl_core.inference.artifacts import artifact as artifacts
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.calibration.out_of_fold import auroc, on_one_scale
from mtl_core.inference.tagging.unknown import PROBABILITY, choose_threshold, precision_and_coverage, unknown_scores
from mtl_core.pipelines.predict import predict
from mtl_core.pipelines.train import TrainOptions, train
from mtl_core.storage.location import Location

SHARES = (0.5, 0.9, 0.99)
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Tracks with a score each (N,)."""

    score_N: np.ndarray
    right_N: np.ndarray  # whether the most probable artist is the true one
    known_N: np.ndarray  # whether the model knows the artist
    artist_N: np.ndarray

    def take(self, rows: np.ndarray) -> "Tracks":
        return Tracks(**{name: array[rows] for name, array in vars(self).items()})


def without(mels: MelDataset, left_out: set[str], out: Path) -> Location:
    """The mels less those of some tracks."""
    out.mkdir(parents=True, exist_ok=True)
    for file in mels.files:
        table = pq.read_table(pa.BufferReader(file.read_bytes()))
        kept = table.filter(pc.invert(pc.is_in(table["track_id"], pa.array(sorted(left_out)))))
        if len(kept):
            pq.write_table(kept, out / file.name, row_group_size=1024, compression="none")
    return Location(str(out))


def own_tracks(artifact: Artifact, score: str) -> Tracks:
    """The out-of-fold tracks that the model's threshold was chosen on, by its own score or the highest probability."""
    assert artifact.out_of_fold is not None
    rows = artifact.out_of_fold.filter(
        pc.and_(artifact.out_of_fold["artist"].is_valid(), pc.greater(artifact.out_of_fold["n_segments"], 0))
    )
    top = [entries[0] for entries in rows["artist_top"].to_pylist()]
    values = [entry["probability"] for entry in top] if score == PROBABILITY else rows["artist_score"].to_pylist()
    score_N, known_N, fold_N = np.array(values), np.array(rows["known"]), np.array(rows["fold"])
    of_fold = [np.flatnonzero(fold_N == fold) for fold in np.unique(fold_N)]
    scaled = on_one_scale([(known_N[rows_F], score_N[rows_F]) for rows_F in of_fold])
    score_N[np.concatenate(of_fold)] = np.concatenate(scaled)
    artist_N = np.array(rows["artist"].to_pylist())
    return Tracks(
        score_N=score_N,
        right_N=np.array([entry["label"] for entry in top]) == artist_N,
        known_N=known_N,
        artist_N=artist_N,
    )


def new_tracks(artifact: Artifact, model: Location, mels: Location, dataset: MelDataset, score: str) -> Tracks:
    """The tracks of the mels that the model never saw."""
    predicted, _ = predict(artifact, dataset, model, mels, on="new")
    head, aggregation, vocabulary = predicted.heads["artist"], predicted.aggregation, predicted.vocabularies["artist"]
    logits_NC = head.all_logits(predicted.embedding_NE)
    temperature, shortest = aggregation.temperature["artist"], aggregation.shortest["artist"]
    artist_N = np.array(predicted.tracks["artist"].to_pylist())
    return Tracks(
        score_N=unknown_scores(score, logits_NC, temperature, head.lengths(predicted.embedding_NE), shortest),
        right_N=np.array(vocabulary.labels)[logits_NC.argmax(1)] == artist_N,
        known_N=np.isin(artist_N, vocabulary.labels),
        artist_N=artist_N,
    )


def named(tracks: Tracks, threshold: float, *, share: float, which: int) -> float:
    """The precision of the names (`which` is 0) or the coverage of known artists' songs (1)."""
    of = (tracks.score_N, tracks.right_N, tracks.known_N, np.array([threshold]))
    return float(precision_and_coverage(*of, unknown_share=share)[which][0])


def interval(sets: list[tuple[Tracks, float]], value) -> str:
    """The mean of `value(tracks, threshold)` over the sets, with the 95 % interval of a bootstrap over artists."""
    rng, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = []
        for tracks, threshold in sets:
            names, index_N = np.unique(tracks.artist_N, return_inverse=True)
            count_G = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            drawn.append(value(tracks.take(np.repeat(np.arange(len(index_N)), count_G[index_N])), threshold))
        means.append(np.nanmean(drawn))
    low, high = np.nanquantile(means, (0.025, 0.975))
    return f"{np.nanmean([value(*pair) for pair in sets]):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mels", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--sets", type=int, default=4)
    arguments.add_argument("--left-out", type=int, default=14)
    arguments.add_argument("--folds", type=int, default=3)
    arguments.add_argument("--recipe", default="best")
    arguments.add_argument("--epochs", type=int, default=None)
    arguments.add_argument("--precision", type=float, default=0.95)
    flags = arguments.parse_args()
    mels = Location(str(flags.mels.absolute()))
    dataset = open_mel_dataset(mels)
    artists = np.random.default_rng(0).permutation(sorted(set(dataset.tracks["artist"].drop_null().to_pylist())))
    own: dict[str, list[Tracks]] = {}
    new: dict[str, list[Tracks]] = {}
    for number in range(flags.sets):
        unknown = artists[number * flags.left_out : (number + 1) * flags.left_out]
        of_unknown = pc.is_in(dataset.tracks["artist"], pa.array(unknown))
        in_fold = split(dataset.tracks, kind="kfold", seed=0, fold=number % 5)["split"]
        never = dataset.tracks.filter(pc.or_(of_unknown, pc.equal(in_fold, "test")))["track_id"].to_pylist()
        model = Location(str(flags.out.absolute() / f"model-{number}"))
        if not (model / artifacts.MODEL_FILE).exists():
            training = without(dataset, set(never), flags.out / f"mels-{number}")
            options = TrainOptions(
                recipe=flags.recipe, epochs=flags.epochs, folds=flags.folds, precision=flags.precision, num_workers=2
            )
            print(train(training, model, options), flush=True)
        artifact = artifacts.load_artifact(model)
        chosen = artifact.aggregation.score["artist"]
        print(f"set {number}: {len(never)} tracks kept from the model, score {chosen}", flush=True)
        for name, score in (("chosen", chosen), (PROBABILITY, PROBABILITY)):
            own.setdefault(name, []).append(own_tracks(artifact, score))
            new.setdefault(name, []).append(new_tracks(artifact, model, mels, dataset, score))
    print(f"\n{sum(t.known_N.sum() for t in new['chosen'])} songs of known artists, "
          f"{sum((~t.known_N).sum() for t in new['chosen'])} of unknown ones, {flags.sets} sets")  # fmt: skip
    print("\n| score | AUROC |\n| --- | ---: |")
    for name, sets in new.items():
        print(f"| {name} | {interval([(t, 0.0) for t in sets], lambda t, _: auroc(t.score_N, t.known_N))} |")
    print("\n| score | unknown share | precision of names | coverage of known artists' songs |")
    print("| --- | ---: | ---: | ---: |")
    for name, share in ((name, share) for name in new for share in SHARES):
        thresholds = [
            choose_threshold(
                t.score_N, t.right_N, t.known_N, t.artist_N, precision=flags.precision, unknown_share=share
            )
            for t in own[name]
        ]
        pairs = list(zip(new[name], thresholds, strict=True))
        precision, coverage = (interval(pairs, partial(named, share=share, which=which)) for which in (0, 1))
        print(f"| {name} | {share:g} | {precision} | {coverage} |", flush=True)
    print(json.dumps({"flags": {key: str(value) for key, value in vars(flags).items()}}))


if __name__ == "__main__":
    main()
