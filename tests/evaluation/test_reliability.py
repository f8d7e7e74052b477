import numpy as np
import pytest

from mtl_core.evaluation.bootstrap import draw_songs
from mtl_core.evaluation.reliability import BINS, assign_bins, calibration_error, reliability, squared_error


def outcomes(n, seed, gap=0.0):
    """Confidences, and whether samples are right with the probability confidence - gap."""
    rng = np.random.default_rng(seed)
    confidence_N = rng.uniform(0.2, 1.0, n)
    return confidence_N, (rng.random(n) < confidence_N - gap).astype(float)


def test_bins_have_equal_counts_and_equal_confidences_stay_together():
    bin_N = assign_bins(np.random.default_rng(0).random(300))
    assert np.bincount(bin_N).tolist() == [20] * BINS
    assert len(np.unique(assign_bins(np.full(50, 0.3)))) == 1
    assert np.bincount(assign_bins(np.arange(7) / 7)).tolist() == [3, 2, 2]


def test_the_squared_error_by_hand():
    confidence_N, right_N = np.array([0.6, 0.6, 0.6, 0.6]), np.array([1.0, 0, 0, 0])
    # One bin: (0.6 - 0.25)^2 - 0.25 x 0.75 / 3
    assert squared_error(confidence_N, right_N) == pytest.approx([0.35**2 - 0.0625])
    (row,) = reliability(confidence_N, right_N)
    assert row == {"low": 0.6, "high": 0.6, "count": 4, "confidence": pytest.approx(0.6), "accuracy": 0.25}


@pytest.mark.parametrize("n", [40, 200])
def test_a_calibrated_model_has_an_error_of_zero_on_average(n):
    squares = np.array([squared_error(*outcomes(n, seed))[0] for seed in range(400)])
    assert abs(squares.mean()) < 3 * squares.std() / 20
    biased = np.mean([np.mean([(b["confidence"] - b["accuracy"]) ** 2 for b in reliability(*outcomes(n, seed))])
                      for seed in range(40)])  # fmt: skip
    assert biased > 10 * abs(squares.mean())


def test_a_gap_between_confidence_and_accuracy_is_the_error():
    squares = [squared_error(*outcomes(200, seed, gap=0.15))[0] for seed in range(400)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.15, abs=0.01)


def test_the_interval_of_the_error_contains_the_truth():
    def interval(seed):
        songs_N = np.arange(400)
        draws = draw_songs(songs_N, resamples=200, seed=0)
        return calibration_error(*outcomes(400, seed, gap=0.1), songs_N, draws)[2]

    assert sum(low <= 0.1 <= high for low, high in map(interval, range(50))) >= 43


def test_one_sample_has_no_error():
    songs_N = np.arange(1)
    assert calibration_error(np.ones(1), np.ones(1), songs_N, draw_songs(songs_N, resamples=5, seed=0)) == (None,) * 3
