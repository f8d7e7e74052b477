"""The temperature that calibrates a track's confidence."""

import numpy as np
import pytest
from scipy.special import softmax

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.inference.calibration.temperature import TEMPERATURE_RANGE, fit_temperature
from mtl_core.inference.tagging.softmax import probabilities


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 3.0])
def test_the_temperature_that_scaled_the_logits_is_recovered(true_temperature):
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 1, (1500, 6))
    targets = np.array([rng.choice(6, p=softmax(x)) for x in logits])
    assert fit_temperature(logits * true_temperature, targets) == pytest.approx(true_temperature, rel=0.15)


def test_calibration_is_deterministic_and_leaves_out_missing_targets():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (40, 4))
    targets = rng.integers(0, 4, 40)
    t = fit_temperature(logits, targets)
    assert fit_temperature(logits, targets) == t
    more = np.concatenate((logits, rng.normal(0, 9, (1, 4))))
    assert fit_temperature(more, np.append(targets, MISSING)) == t


def test_a_few_validation_tracks_that_are_all_right_do_not_give_certainty():
    logits = np.tile(np.eye(4), (4, 1)) * 3.0
    t = fit_temperature(logits, np.arange(16) % 4)
    assert probabilities(logits[0], temperature=t).max() == pytest.approx(17 / 18, abs=1e-3)


def test_tracks_that_are_all_wrong_give_the_highest_temperature():
    logits = np.array([[5.0, 0.0]] * 8)
    assert fit_temperature(logits, np.ones(8, int)) == pytest.approx(TEMPERATURE_RANGE[1], rel=0.01)


@pytest.mark.parametrize(
    ("logits", "targets"), [(np.ones((0, 3)), []), (np.ones((1, 3)), [MISSING]), (np.ones((1, 1)), [0])]
)
def test_with_nothing_to_calibrate_on_the_temperature_is_1(logits, targets):
    assert fit_temperature(logits, np.array(targets, int)) == 1.0


def test_each_track_needs_a_target():
    with pytest.raises(ValueError, match="1 tracks need as many targets, got 2"):
        fit_temperature(np.ones((1, 3)), np.array([0, 1]))
