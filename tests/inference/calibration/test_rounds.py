"""The rounds of a model are calibrated on what fold models say of the first segments of new tracks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_out_of_fold import fold_scores

from mtl_core.inference.calibration.out_of_fold import calibrate
from mtl_core.inference.calibration.rounds import MIN_TRACKS, calibrate_rounds
from mtl_core.inference.tagging.aggregation import Aggregation

CHOICE = {"precision": 0.9, "unknown_share": 0.5, "seed": 0}


def with_rounds(number, n_long=1000):
    """Early embeddings are noisier; the first tracks have 32 segments, the others 8."""
    fold = fold_scores(number, noise=0.3)
    rng = np.random.default_rng(number + 50)
    long_N = np.arange(len(fold.known_N)) < n_long
    noise_NE = np.where(long_N, 0.03, 0.0)[:, None] * rng.normal(size=fold.embedding_NE.shape)
    rounds = {
        end: ((fold.embedding_NE + noise_NE * scale).astype(np.float32), np.minimum(fold.segments_N, end))
        for end, scale in ((4, 2.0), (8, 1.0), (16, 0.5))
    }
    return replace(fold, rounds=rounds, read_N=np.where(long_N, 32, 8), segments_N=np.where(fold.segments_N, 32, 0))


@pytest.fixture(scope="module")
def calibrated():
    folds = [with_rounds(number) for number in range(4)]
    return calibrate_rounds(folds, calibrate(folds, ["artist", "language"], **CHOICE), **CHOICE)


def test_each_round_has_its_numbers_and_stops(calibrated):
    aggregation, exits = calibrated
    assert [of.segments for of in aggregation.rounds] == [4, 8, 16]
    for of in aggregation.rounds:
        assert of.numbers.score == aggregation.score
        assert {*of.stop} == {"artist", "language"}
    assert exits["agreement"] >= 0.99
    assert 4 <= exits["mean_segments"] < exits["mean_of_all"] == 32
    for artists in ("known", "unknown"):
        assert sum(exits[artists].values()) == pytest.approx(1)


def test_rounds_survive_json(calibrated):
    aggregation, _ = calibrated
    values = json.loads(json.dumps(aggregation.to_dict()))
    assert Aggregation(**values).rounds == aggregation.rounds
    assert Aggregation(**values).to_dict() == aggregation.to_dict()
    assert aggregation.round_of(3) is None
    assert [aggregation.round_of(n).segments for n in (4, 7, 8, 99)] == [4, 4, 8, 16]


def test_a_round_that_few_tracks_reach_has_no_numbers():
    folds = [with_rounds(number, n_long=MIN_TRACKS // 4 - 1) for number in range(4)]
    final = calibrate(folds, ["artist"], **CHOICE)
    folds = [replace(fold, heads={"artist": fold.heads["artist"]}) for fold in folds]
    aggregation, exits = calibrate_rounds(folds, final, **CHOICE)
    assert [of.segments for of in aggregation.rounds] == [4]  # which tracks of 8 have, too
    assert exits is None or exits["mean_of_all"] < 32
