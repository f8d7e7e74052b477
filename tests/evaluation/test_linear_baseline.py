"""The linear baseline: its values, and that it tells easy classes apart."""

import numpy as np
import pytest

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation.linear_baseline import band_statistics, linear_log_probabilities


def test_values_are_mean_deviation_and_step_of_each_band():
    mel_TF = np.zeros((4, 2))
    mel_TF[:, 0] = [1, 3, 1, 3]
    (x_V,) = band_statistics(mel_TF[None])
    assert x_V == pytest.approx([1, -1, 1, 0, 2, 0])
    louder_V = band_statistics(mel_TF[None] + 5)[0]
    assert louder_V == pytest.approx(x_V)


def test_it_names_easy_tracks_and_gives_an_unseen_class_nothing():
    rng = np.random.default_rng(0)
    targets_S = np.repeat([0, 1, 2], 40)
    x_SV = rng.normal(size=(120, 6)) + 4 * np.eye(6)[targets_S]
    targets_S[:5] = MISSING
    tracks = [rng.normal(size=(n, 6)) + 4 * np.eye(6)[c] for c, n in ((0, 1), (1, 3), (2, 7))]
    log_p_NC = linear_log_probabilities(x_SV, targets_S, tracks, 4)
    assert log_p_NC.argmax(1).tolist() == [0, 1, 2]
    assert (log_p_NC[:, 3] == -np.inf).all()
