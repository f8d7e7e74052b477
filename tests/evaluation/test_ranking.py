import numpy as np
import pytest

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation.metrics import scores
from mtl_core.evaluation.ranking import curves


def test_curves_end_where_they_must_and_hold_the_areas():
    rng = np.random.default_rng(3)
    t = rng.integers(0, 3, 40)
    p = rng.dirichlet(np.ones(3), 40)
    p[np.arange(40), t] += 0.5
    found = scores(p, t, resamples=0)["per_class"]
    for c, curve in curves(p, t, most=200).items():
        assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
        assert curve["precision"][-1] == pytest.approx((t == c).mean())
        assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(found["auc_roc"][c])
        steps = np.diff(curve["recall"], prepend=0) * curve["precision"]
        assert steps.sum() == pytest.approx(found["auc_pr"][c])
        assert np.all(np.diff(curve["recall"]) >= 0)


def test_a_thinned_curve_lies_on_the_whole_one():
    rng = np.random.default_rng(4)
    t, p = rng.integers(0, 2, 5000), rng.dirichlet(np.ones(2), 5000)
    whole, thin = curves(p, t, most=10**5)[1], curves(p, t, most=50)[1]
    assert len(thin["recall"]) <= 52
    points = set(zip(whole["recall"], whole["precision"], strict=True))
    assert points.issuperset(zip(thin["recall"], thin["precision"], strict=True))


def test_a_class_without_a_rest_has_no_curve():
    assert curves(np.ones((3, 2)) / 2, np.array([1, 1, MISSING])) == {}
