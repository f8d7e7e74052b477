import numpy as np
import pytest

from mtl_core.evaluation import ranking
from mtl_core.evaluation.metrics import scores
from mtl_core.evaluation.ranking import curve


def test_curves_have_the_right_ends_and_areas():
    rng = np.random.default_rng(3)
    t = rng.integers(0, 3, 40)
    p = rng.dirichlet(np.ones(3), 40)
    p[np.arange(40), t] += 0.5
    per_class = scores(p, t, resamples=0)["per_class"]
    for c, line in ((c, curve(p[:, c], t == c)) for c in range(3)):
        assert (line["fpr"][0], line["tpr"][0], line["fpr"][-1], line["tpr"][-1]) == (0, 0, 1, 1)
        assert line["precision"][-1] == pytest.approx((t == c).mean())
        assert np.trapezoid(line["tpr"], line["fpr"]) == pytest.approx(per_class["auc_roc"][c])
        steps = np.diff(line["recall"], prepend=0) * line["precision"]
        assert steps.sum() == pytest.approx(per_class["auc_pr"][c])
        assert np.all(np.diff(line["recall"]) >= 0)


def test_a_thinned_curve_lies_on_the_full_curve(monkeypatch):
    rng = np.random.default_rng(4)
    t, p = rng.integers(0, 2, 5000), rng.dirichlet(np.ones(2), 5000)
    thin = curve(p[:, 1], t == 1)
    monkeypatch.setattr(ranking, "CURVE_POINTS", 10**5)
    full = curve(p[:, 1], t == 1)
    assert len(thin["recall"]) <= 82 < len(full["recall"])
    points = set(zip(full["recall"], full["precision"], strict=True))
    assert points.issuperset(zip(thin["recall"], thin["precision"], strict=True))
