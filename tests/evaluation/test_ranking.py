import numpy as np
import pytest

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation import ranking
from mtl_core.evaluation.metrics import scores
from mtl_core.evaluation.ranking import curves


def test_curves_have_the_right_ends_and_areas():
    rng = np.random.default_rng(3)
    t = rng.integers(0, 3, 40)
    p = rng.dirichlet(np.ones(3), 40)
    p[np.arange(40), t] += 0.5
    per_class = scores(p, t, resamples=0)["per_class"]
    for c, curve in curves(p, t).items():
        assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
        assert curve["precision"][-1] == pytest.approx((t == c).mean())
        assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(per_class["auc_roc"][c])
        steps = np.diff(curve["recall"], prepend=0) * curve["precision"]
        assert steps.sum() == pytest.approx(per_class["auc_pr"][c])
        assert np.all(np.diff(curve["recall"]) >= 0)


def test_a_thinned_curve_lies_on_the_full_curve(monkeypatch):
    rng = np.random.default_rng(4)
    t, p = rng.integers(0, 2, 5000), rng.dirichlet(np.ones(2), 5000)
    thin = curves(p, t)[1]
    monkeypatch.setattr(ranking, "CURVE_POINTS", 10**5)
    full = curves(p, t)[1]
    assert len(thin["recall"]) <= 82 < len(full["recall"])
    points = set(zip(full["recall"], full["precision"], strict=True))
    assert points.issuperset(zip(thin["recall"], thin["precision"], strict=True))


def test_a_class_without_negative_samples_has_no_curve():
    assert curves(np.ones((3, 2)) / 2, np.array([1, 1, MISSING])) == {}
