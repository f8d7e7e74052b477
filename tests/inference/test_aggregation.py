import json

import numpy as np
import pytest

from mtl_core.dataset.vocabulary import MISSING, Vocabulary
from mtl_core.inference.aggregation import (
    METHODS,
    TEMPERATURE_RANGE,
    Aggregation,
    choose_threshold,
    fit_temperature,
    tag,
    track_probabilities,
)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("segments", "classes"), [(1, 1), (1, 17), (40, 68)])
def test_probabilities_are_a_distribution(method, segments, classes):
    logits = np.random.default_rng(0).normal(0, 30, (segments, classes)).astype(np.float32)
    p = track_probabilities(logits, method, 0.7)
    assert p.dtype == np.float64
    assert p.shape == (classes,)
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_methods_are_what_they_are_called():
    p = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.05, 0.9, 0.05]])
    logits = np.log(p)
    geometric = np.exp(np.log(p).mean(0))
    assert track_probabilities(logits) == pytest.approx(geometric / geometric.sum())
    assert track_probabilities(logits, "mean_probability") == pytest.approx(p.mean(0))
    assert track_probabilities(logits, "vote") == pytest.approx([2 / 3, 1 / 3, 0])


@pytest.mark.parametrize("method", METHODS)
def test_one_segment_or_the_same_segment_again_changes_nothing(method):
    logits = np.random.default_rng(1).normal(size=(1, 5))
    assert track_probabilities(np.repeat(logits, 7, 0), method) == pytest.approx(track_probabilities(logits, method))


def test_a_constant_added_to_a_segments_logits_changes_nothing():
    logits = np.random.default_rng(2).normal(size=(6, 4))
    shifted = logits + np.arange(6)[:, None] * 100
    for method in METHODS:
        assert track_probabilities(shifted, method, 2.0) == pytest.approx(track_probabilities(logits, method, 2.0))


def test_temperature_flattens_and_sharpens_without_reordering():
    logits = np.random.default_rng(3).normal(size=(9, 6))
    cool, plain, hot = (track_probabilities(logits, temperature=t) for t in (0.5, 1.0, 4.0))
    assert cool.max() > plain.max() > hot.max()
    assert (np.argsort(cool) == np.argsort(hot)).all()


@pytest.mark.parametrize(
    ("logits", "method", "temperature", "names"),
    [
        (np.zeros((0, 3)), "vote", 1, "shape"),
        (np.zeros(3), "vote", 1, "shape"),
        (np.array([[np.nan, 0]]), "vote", 1, "finite"),
        (np.zeros((1, 3)), "median", 1, "median.*mean_log_probability"),
        (np.zeros((1, 3)), "vote", 0, "temperature"),
        (np.zeros((1, 3)), "vote", np.nan, "temperature"),
    ],
)
def test_bad_input_is_named(logits, method, temperature, names):
    with pytest.raises(ValueError, match=names):
        track_probabilities(logits, method, temperature)


def test_tag_is_best_first_with_ties_in_label_order():
    vocabulary = Vocabulary(("a", "b", "c", "d", "e", "f", "g"))
    p = np.array([0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.1])
    result = tag(p, vocabulary, None)
    assert [label for label, _ in result.top] == ["b", "c", "f", "a", "d"]
    assert (result.label, result.confidence) == ("b", 0.2)


def test_below_the_threshold_the_label_alone_is_unknown():
    vocabulary = Vocabulary(("a", "b"))
    p = np.array([0.4, 0.6])
    unknown, known = tag(p, vocabulary, 0.61), tag(p, vocabulary, 0.6)
    assert (unknown.label, known.label) == (None, "b")
    assert unknown.confidence == known.confidence == 0.6
    assert unknown.top == known.top == [("b", 0.6), ("a", 0.4)]
    with pytest.raises(ValueError, match="2 labels"):
        tag(np.ones(3) / 3, vocabulary)


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("method", ["mean_log_probability", "mean_probability"])
def test_temperature_is_found_again(true_temperature, method):
    rng = np.random.default_rng(4)
    tracks = [rng.normal(0, 1, (1, 6)) for _ in range(1500)]
    targets = np.array([rng.choice(6, p=softmax(x[0])) for x in tracks])
    scaled = [x * true_temperature for x in tracks]
    assert fit_temperature(scaled, targets, method) == pytest.approx(true_temperature, rel=0.15)


def test_calibration_is_deterministic_and_leaves_out_missing_targets():
    rng = np.random.default_rng(5)
    tracks = [rng.normal(0, 2, (rng.integers(1, 9), 4)) for _ in range(40)]
    targets = rng.integers(0, 4, 40)
    t = fit_temperature(tracks, targets)
    assert fit_temperature(tracks, targets) == t
    more = [*tracks, rng.normal(0, 9, (3, 4))]
    assert fit_temperature(more, np.append(targets, MISSING)) == t


def test_few_validation_tracks_that_are_all_right_do_not_give_certainty():
    tracks = [np.eye(4)[i % 4][None] * 3.0 for i in range(16)]
    targets = np.arange(16) % 4
    t = fit_temperature(tracks, targets)
    assert track_probabilities(tracks[0], temperature=t).max() == pytest.approx(17 / 18, abs=1e-3)


def test_all_wrong_flattens_to_the_hottest():
    tracks = [np.array([[5.0, 0.0]])] * 8
    assert fit_temperature(tracks, np.ones(8, int)) == pytest.approx(TEMPERATURE_RANGE[1], rel=0.01)


@pytest.mark.parametrize(
    ("tracks", "targets", "method"),
    [
        ([], [], "mean_log_probability"),
        ([np.ones((2, 3))], [MISSING], "mean_log_probability"),
        ([np.ones((2, 1))], [0], "mean_log_probability"),
        ([np.ones((2, 3))], [0], "vote"),
    ],
)
def test_nothing_to_calibrate_on_is_temperature_1(tracks, targets, method):
    assert fit_temperature(tracks, np.array(targets, int), method) == 1.0


def test_threshold_is_the_smallest_that_is_precise_enough():
    confidence = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.3])
    correct = np.array([1, 1, 0, 1, 1, 0], bool)
    assert choose_threshold(confidence, correct, 1.0) == 0.9
    assert choose_threshold(confidence, correct, 0.8) == 0.5  # 4 of 5, though 2 of 3 at 0.8 were too few
    assert choose_threshold(confidence, correct, 0.6) == 0.3
    shuffled = np.array([3, 0, 5, 2, 4, 1])
    assert choose_threshold(confidence[shuffled], correct[shuffled], 0.8) == 0.5
    assert choose_threshold(confidence, ~correct, 0.99) is None
    assert choose_threshold(np.array([]), np.array([], bool), 0.5) is None
    with pytest.raises(ValueError, match=r"precision.*1\.5"):
        choose_threshold(confidence, correct, 1.5)


def test_aggregation_round_trips_through_json_and_checks_itself():
    a = Aggregation(method="vote", temperature={"artist": 0.4}, threshold={"language": 0.7})
    assert a.temperature == {"artist": 0.4, "language": 1.0}
    assert a.threshold == {"artist": None, "language": 0.7}
    assert Aggregation.from_dict(json.loads(json.dumps(a.to_dict()))) == a
    assert Aggregation().to_dict() == {
        "method": "mean_log_probability",
        "temperature": {"artist": 1.0, "language": 1.0},
        "threshold": {"artist": None, "language": None},
    }
    for wrong in [
        {"method": "max"},
        {"temperature": {"artist": 0}},
        {"temperature": {"genre": 1}},
        {"threshold": {"artist": 2}},
    ]:
        with pytest.raises(ValueError, match=r"allowed|must be"):
            Aggregation(**wrong)
