"""Pooling a track's segments, and the tag that follows."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.aggregation import Aggregation, tag, track_probabilities


@pytest.mark.parametrize(("segments", "classes"), [(1, 1), (1, 17), (40, 68)])
def test_probabilities_are_a_distribution(segments, classes):
    logits = np.random.default_rng(0).normal(0, 30, (segments, classes)).astype(np.float32)
    p = track_probabilities(logits, 0.7)
    assert p.dtype == np.float64
    assert p.shape == (classes,)
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_probabilities_are_the_geometric_mean_of_the_segments():
    p = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.05, 0.9, 0.05]])
    geometric = np.exp(np.log(p).mean(0))
    assert track_probabilities(np.log(p)) == pytest.approx(geometric / geometric.sum())


def test_repeating_a_segment_changes_nothing():
    logits = np.random.default_rng(1).normal(size=(1, 5))
    assert track_probabilities(np.repeat(logits, 7, 0)) == pytest.approx(track_probabilities(logits))


def test_a_constant_added_to_a_segments_logits_changes_nothing():
    logits = np.random.default_rng(2).normal(size=(6, 4))
    shifted = logits + np.arange(6)[:, None] * 100
    assert track_probabilities(shifted, 2.0) == pytest.approx(track_probabilities(logits, 2.0))


def test_temperature_flattens_and_sharpens_without_reordering():
    logits = np.random.default_rng(3).normal(size=(9, 6))
    cool, plain, hot = (track_probabilities(logits, temperature=t) for t in (0.5, 1.0, 4.0))
    assert cool.max() > plain.max() > hot.max()
    assert (np.argsort(cool) == np.argsort(hot)).all()


@pytest.mark.parametrize(
    ("logits", "temperature", "message"),
    [
        (np.zeros((0, 3)), 1, "shape"),
        (np.zeros(3), 1, "shape"),
        (np.array([[np.nan, 0]]), 1, "finite"),
        (np.zeros((1, 3)), 0, "temperature"),
        (np.zeros((1, 3)), np.nan, "temperature"),
    ],
)
def test_wrong_logits_and_temperatures_are_refused(logits, temperature, message):
    with pytest.raises(ValueError, match=message):
        track_probabilities(logits, temperature)


def test_a_tag_lists_the_best_labels_first_with_ties_in_label_order():
    vocabulary = Vocabulary(("a", "b", "c", "d", "e", "f", "g"))
    p = np.array([0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.1])
    result = tag(p, vocabulary, None)
    assert [label for label, _ in result.top] == ["b", "c", "f", "a", "d"]
    assert (result.label, result.confidence) == ("b", 0.2)


def test_below_the_threshold_only_the_label_is_null():
    vocabulary = Vocabulary(("a", "b"))
    p = np.array([0.4, 0.6])
    below, above = tag(p, vocabulary, 0.61), tag(p, vocabulary, 0.6)
    assert (below.label, above.label) == (None, "b")
    assert below.confidence == above.confidence == 0.6
    assert below.top == above.top == [("b", 0.6), ("a", 0.4)]
    with pytest.raises(ValueError, match="2 labels"):
        tag(np.ones(3) / 3, vocabulary)


def test_an_aggregation_survives_json():
    a = Aggregation(temperature={"artist": 0.4}, threshold={"language": 0.7})
    assert a.temperature == {"artist": 0.4, "language": 1.0}
    assert a.threshold == {"artist": None, "language": 0.7}
    assert Aggregation(**json.loads(json.dumps(asdict(a)))) == a
    assert asdict(Aggregation()) == {
        "method": "mean_log_probability",
        "temperature": {"artist": 1.0, "language": 1.0},
        "threshold": {"artist": None, "language": None},
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "vote"},
        {"temperature": {"artist": 0}},
        {"temperature": {"genre": 1}},
        {"threshold": {"artist": 2}},
    ],
)
def test_a_wrong_aggregation_is_refused(wrong):
    with pytest.raises(ValueError, match=r"allowed|must be"):
        Aggregation(**wrong)
