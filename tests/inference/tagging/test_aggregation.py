"""The probabilities of a track, and the tag that follows."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax

from mtl_core.dataset.vocabulary import Vocabulary
from mtl_core.inference.tagging.aggregation import Aggregation, tag
from mtl_core.inference.tagging.softmax import probabilities


@pytest.mark.parametrize("shape", [(1,), (17,), (68,), (3, 68)])
def test_probabilities_are_a_distribution(shape):
    logits = np.random.default_rng(0).normal(0, 30, shape).astype(np.float32)
    p = probabilities(logits, 0.7)
    assert p.shape == shape
    assert p.min() >= 0
    assert p.sum(-1) == pytest.approx(np.ones(shape[:-1]), abs=1e-6)
    assert p == pytest.approx(softmax(logits.astype(np.float64) / 0.7, axis=-1), abs=1e-6)


def test_the_probabilities_of_mean_logits_are_the_geometric_mean_of_the_segments():
    p = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.05, 0.9, 0.05]])
    geometric = np.exp(np.log(p).mean(0))
    assert probabilities(np.log(p).mean(0)) == pytest.approx(geometric / geometric.sum())


def test_a_constant_added_to_the_logits_changes_nothing():
    logits = np.random.default_rng(2).normal(size=4)
    assert probabilities(logits + 100, 2.0) == pytest.approx(probabilities(logits, 2.0))


def test_temperature_flattens_and_sharpens_without_reordering():
    logits = np.random.default_rng(3).normal(size=6)
    cool, plain, hot = (probabilities(logits, temperature=t) for t in (0.5, 1.0, 4.0))
    assert cool.max() > plain.max() > hot.max()
    assert (np.argsort(cool) == np.argsort(hot)).all()


@pytest.mark.parametrize(
    ("logits", "temperature", "message"),
    [
        (np.zeros(0), 1, "shape"),
        (np.float64(0), 1, "shape"),
        (np.array([np.nan, 0]), 1, "finite"),
        (np.zeros(3), 0, "temperature"),
        (np.zeros(3), np.nan, "temperature"),
    ],
)
def test_wrong_logits_and_temperatures_are_refused(logits, temperature, message):
    with pytest.raises(ValueError, match=message):
        probabilities(logits, temperature)


def test_a_tag_lists_the_best_labels_first_with_ties_in_label_order():
    vocabulary = Vocabulary(("a", "b", "c", "d", "e", "f", "g"))
    p = np.array([0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.1])
    result = tag(np.log(p), "artist", vocabulary, Aggregation())
    assert [label for label, _ in result.top] == ["b", "c", "f", "a", "d"]
    assert (result.label, result.confidence) == ("b", pytest.approx(0.2))


@pytest.mark.parametrize("classes", [1, 3, 5, 6, 2000])
def test_the_top_list_is_that_of_a_whole_sort(classes):
    logits = np.random.default_rng(classes).integers(0, 9, classes).astype(np.float32)
    vocabulary = Vocabulary(tuple(f"{i:04}" for i in range(classes)))
    result = tag(logits, "artist", vocabulary, Aggregation())
    assert [int(label) for label, _ in result.top] == np.argsort(-logits, kind="stable")[:5].tolist()


def test_below_the_threshold_only_the_label_is_null():
    vocabulary = Vocabulary(("a", "b"))
    logits = np.log([0.4, 0.6])
    below, above = (tag(logits, "artist", vocabulary, Aggregation(threshold={"artist": t})) for t in (0.61, 0.59))
    assert (below.label, above.label) == (None, "b")
    assert below.confidence == above.confidence == below.score == pytest.approx(0.6)
    assert [label for label, _ in below.top] == [label for label, _ in above.top] == ["b", "a"]
    with pytest.raises(ValueError, match="2 labels"):
        tag(np.ones(3), "artist", vocabulary, Aggregation())


def test_the_threshold_is_one_of_the_score():
    vocabulary, logits = Vocabulary(("a", "b")), np.array([1.0, 3.0])
    chosen = {"temperature": {"artist": 2.0}, "score": {"artist": "logit"}}
    below, above = (
        tag(logits, "artist", vocabulary, Aggregation(**chosen, threshold={"artist": t})) for t in (1.6, 1.5)
    )
    assert (below.label, above.label, above.score) == (None, "b", 1.5)


def test_an_aggregation_survives_json():
    a = Aggregation(temperature={"artist": 0.4}, threshold={"language": 0.7})
    assert a.temperature == {"artist": 0.4, "language": 1.0}
    assert a.threshold == {"artist": None, "language": 0.7}
    assert Aggregation(**json.loads(json.dumps(asdict(a)))) == a
    scored = Aggregation(score={"artist": "energy"}, threshold={"artist": -3.0})
    assert Aggregation(**json.loads(json.dumps(scored.to_dict()))) == scored
    assert Aggregation().to_dict() == {  # as version 0.1 wrote it
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
        {"threshold": {"artist": float("nan")}},
        {"score": {"artist": "distance"}},
    ],
)
def test_a_wrong_aggregation_is_refused(wrong):
    with pytest.raises(ValueError, match=r"allowed|must be"):
        Aggregation(**wrong)
