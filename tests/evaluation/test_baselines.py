import numpy as np
import pyarrow as pa
import pytest

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation.baselines import artist_languages, chance, class_prior, language_probabilities
from mtl_core.evaluation.metrics import scores


def test_chance_is_the_mean_score_of_random_orders():
    t = np.repeat([0, 1, 2], [1, 3, 16])
    rng = np.random.default_rng(0)
    random_scores = [scores(rng.random((20, 3)), t, resamples=0) for _ in range(800)]
    for name in ("auc_pr_macro", "auc_pr_micro"):
        assert chance(t, 3)[name] == pytest.approx(np.mean([s[name] for s in random_scores]), abs=0.015)
    assert chance(t, 3)["auc_pr_macro"] > chance(t, 3)["prevalence"] + 0.05


def test_the_class_prior_has_the_prevalence_as_its_auc_pr():
    t = np.array([0] * 6 + [1] * 3 + [2])
    prior = class_prior(t, 3)
    s = scores(np.tile(prior, (10, 1)), t, resamples=0)
    assert s["per_class"]["auc_pr"] == pytest.approx([0.6, 0.3, 0.1])
    assert s["per_class"]["auc_roc"] == [0.5] * 3
    assert s["top_1"] == s["chance"]["majority"] == 0.6
    assert s["chance"]["prevalence"] == pytest.approx(1 / 3)
    assert s["ece"] == pytest.approx(0, abs=1e-12)


def test_the_probability_of_a_language_is_the_sum_over_its_artists():
    artist = np.array([[0.5, 0.2, 0.2, 0.1], [0, 0, 0, 1.0]])
    p = language_probabilities(artist, np.array([0, 0, 1, MISSING]), 3)
    assert p == pytest.approx(np.array([[0.7 / 0.9, 0.2 / 0.9, 0], [1 / 3, 1 / 3, 1 / 3]]))


def test_the_prior_without_labels_is_uniform():
    assert class_prior(np.array([MISSING, MISSING]), 4).tolist() == [0.25] * 4
    assert class_prior(np.array([1, MISSING, 1, 0]), 3) == pytest.approx([1 / 3, 2 / 3, 0])


def test_the_language_of_an_artist_is_that_of_most_of_its_tracks():
    rows = [("a", "en"), ("a", "de"), ("a", "de"), ("b", "en"), ("b", "de"), ("c", None), (None, "de")]
    tracks = pa.table({"artist": [artist for artist, _ in rows], "language": [language for _, language in rows]})
    assert artist_languages([tracks]) == {"a": "de", "b": "de"}  # b: equally frequent, the first of the alphabet
    assert artist_languages([tracks, tracks.slice(3, 1), tracks.slice(3, 1)]) == {"a": "de", "b": "en"}
