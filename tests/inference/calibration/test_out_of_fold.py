"""The calibration that follows from what fold models say of tracks that they did not train on."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.calibration.out_of_fold import FoldScores, auroc, calibrate, out_of_fold_table
from mtl_core.inference.tagging.heads import Head
from mtl_core.inference.tagging.softmax import probabilities
from mtl_core.inference.tagging.unknown import NOTHING_IS_NAMED, precision_and_coverage
from mtl_core.schema import OUT_OF_FOLD

ARTISTS, LANGUAGES, E = 40, 4, 96


def fold_scores(number, n_folds=4, songs=6, noise=0.6, shift=0.0):
    """A fold model that knows three quarters of the artists; each artist is a direction."""
    rng = np.random.default_rng(number)
    names = [f"a{a:02}" for a in range(ARTISTS)]
    direction_AE = np.random.default_rng(100).normal(size=(ARTISTS, E)) / 10
    labels = [name for a, name in enumerate(names) if a % n_folds != number]
    artist_N = np.repeat(np.arange(ARTISTS), songs)
    known_N = artist_N % n_folds != number
    x_NE = direction_AE[artist_N] + noise * rng.normal(size=(len(artist_N), E)) / 10
    weight_CE = direction_AE[[names.index(label) for label in labels]] * 5
    language_of = np.arange(ARTISTS) % LANGUAGES
    language_LE = np.stack([direction_AE[language_of == la].mean(0) for la in range(LANGUAGES)]) * 20
    tracks = pa.table(
        {
            "track_id": [f"{names[a]}-{i}" for i, a in enumerate(artist_N)],
            "artist": [names[a] for a in artist_N],
            "language": ["zxx" if i % 13 == 0 else f"l{language_of[a]}" for i, a in enumerate(artist_N)],
        }
    )
    return FoldScores(
        fold=number,
        tracks=tracks,
        known_N=known_N,
        embedding_NE=x_NE.astype(np.float32),
        segments_N=np.where(np.arange(len(artist_N)) % 17 == 16, 0, 8),
        read_N=np.full(len(artist_N), 8),
        heads={
            "artist": Head(weight_CE.astype(np.float32), np.full(len(labels), shift, np.float32)),
            "language": Head(language_LE.astype(np.float32), np.zeros(LANGUAGES, np.float32)),
        },
        vocabularies={
            "artist": Vocabulary(tuple(labels)),
            "language": Vocabulary(tuple(f"l{la}" for la in range(LANGUAGES))),
        },
    )


@pytest.fixture(scope="module")
def folds():
    return [fold_scores(number) for number in range(4)]


@pytest.fixture(scope="module")
def aggregation(folds):
    return calibrate(folds, ["artist", "language"], precision=0.9, unknown_share=0.5, seed=0)


def test_confidence_of_known_artists_is_calibrated(folds, aggregation):
    confidence, right = [], []
    for fold in folds:
        known = fold.select(fold.known_N & (fold.segments_N > 0))
        p_NC = probabilities(known.heads["artist"].all_logits(known.embedding_NE), aggregation.temperature["artist"])
        confidence += list(p_NC.max(1))
        right += list(p_NC.argmax(1) == known.targets("artist"))
    assert np.mean(confidence) == pytest.approx(np.mean(right), abs=0.03)


def test_the_names_are_right_as_often_as_asked(folds, aggregation):
    rows = [row for row in out_of_fold_table(folds, aggregation).to_pylist() if row["n_segments"]]
    named_N, right_N, known_N = np.array(
        [(row["artist_tag"] is not None, row["artist_tag"] == row["artist"], row["known"]) for row in rows]
    ).T
    precision, coverage = precision_and_coverage(
        named_N.astype(float), right_N, known_N, np.array([0.5]), unknown_share=0.5
    )
    assert precision[0] >= 0.9
    assert coverage[0] >= 0.3


def test_an_instrumental_counts_as_wrong_in_any_language(folds):
    """Here languages of known artists are easy, so only instrumentals and unknown artists raise the threshold."""
    as_known = [replace(fold, known_N=np.ones(len(fold.known_N), bool)) for fold in folds]
    songs = [
        replace(fold, known_N=np.array([label != "zxx" for label in fold.tracks["language"].to_pylist()]))
        for fold in as_known
    ]
    thresholds = [
        calibrate(songs, ["language"], precision=0.75, unknown_share=share, seed=0).threshold["language"]
        for share in (0.0, 0.2)
    ]
    assert thresholds[0] < thresholds[1]


def test_a_row_is_the_tag_of_its_embedding(folds, aggregation):
    table = out_of_fold_table(folds, aggregation)
    assert table.schema.names == OUT_OF_FOLD.names and table.schema.types == OUT_OF_FOLD.types
    assert len(table) == sum(len(fold.tracks) for fold in folds)
    silent = table.filter(pc.equal(table["n_segments"], 0)).to_pylist()
    assert silent
    for row in silent:
        assert (row["embedding"], row["artist_tag"], row["artist_top"], row["artist_score"]) == (None, None, [], None)


def test_a_fold_model_whose_scores_are_all_higher_changes_nothing(folds, aggregation):
    """A constant on all logits moves energies and largest logits, but no probability."""
    shifted = [fold_scores(number, shift=3.0 if number == 1 else 0.0) for number in range(4)]
    other = calibrate(shifted, ["artist"], precision=0.9, unknown_share=0.5, seed=0)
    assert other.temperature["artist"] == pytest.approx(aggregation.temperature["artist"], rel=1e-3)
    assert other.score["artist"] == aggregation.score["artist"]
    named = []
    for one, those in ((aggregation, folds), (other, shifted)):
        rows = out_of_fold_table(those, one).to_pylist()
        named.append(np.mean([row["artist_tag"] is not None for row in rows if row["fold"] != 1]))
    assert named[0] == pytest.approx(named[1], abs=0.05)


def test_noise_is_never_named():
    folds = [fold_scores(number, noise=30.0) for number in range(4)]
    found = calibrate(folds, ["artist"], precision=0.9, unknown_share=0.5, seed=0)
    assert found.threshold["artist"] == NOTHING_IS_NAMED


def test_auroc():
    assert auroc(np.array([1.0, 2, 3, 3]), np.array([False, True, True, False])) == pytest.approx(2.5 / 4)
    assert auroc(np.array([1.0]), np.array([True])) == 0.5
