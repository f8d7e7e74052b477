"""The linear baseline agrees with scikit-learn's discriminant analysis."""

import numpy as np
import pytest
from builders.moments import moments
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.model.linear_baseline import fit_linear


def songs(seed, per_class=12, segments=6, values=20):
    rng = np.random.default_rng(seed)
    centre_CV = np.random.default_rng(8).normal(size=(5, values))
    target_N = np.repeat(np.arange(5), per_class)
    x_NSV = (
        centre_CV[target_N][:, None]
        + 0.5 * rng.normal(size=(len(target_N), 1, values))
        + 2 * rng.normal(size=(len(target_N), segments, values))
    )
    return x_NSV * np.geomspace(0.1, 10, values) + 3, target_N


def test_log_probabilities_are_near_those_of_scikit_learn():
    x_NSV, target_N = songs(0)
    new_NSV, _ = songs(1)
    weight_CV, bias_C = fit_linear(moments(x_NSV), {"artist": target_N}, {"artist": 5})["artist"]
    ours_NC = log_softmax(new_NSV.mean(1) @ weight_CV.T + bias_C, axis=1)
    scaler = StandardScaler().fit(x_NSV.reshape(-1, 20))
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    model.fit(scaler.transform(x_NSV.reshape(-1, 20)), np.repeat(target_N, 6))
    theirs_NC = model.predict_log_proba(scaler.transform(new_NSV.reshape(-1, 20))).reshape(60, 6, 5).mean(1)
    theirs_NC = log_softmax(theirs_NC, axis=1)
    assert (ours_NC.argmax(1) == theirs_NC.argmax(1)).mean() > 0.95
    assert np.abs(np.exp(ours_NC) - np.exp(theirs_NC)).mean() < 0.03  # it shrinks the classes' covariances one by one


def test_a_class_without_a_segment_is_never_named():
    x_NSV, target_N = songs(0)
    target_N = np.where(target_N == 4, MISSING, target_N)
    weight_CV, bias_C = fit_linear(moments(x_NSV), {"artist": target_N}, {"artist": 5})["artist"]
    assert (x_NSV.mean(1) @ weight_CV.T + bias_C).argmax(1).max() == 3
    assert bias_C[4] == pytest.approx(-1e9)
