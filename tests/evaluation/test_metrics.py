import json
import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mtl_core.dataset.vocabulary import MISSING
from mtl_core.evaluation.metrics import (
    HEADLINES,
    bootstrap,
    calibration_error,
    chance,
    class_prior,
    confidence_interval,
    language_of_artists,
    reliability,
    scores,
)


def skilled(n, classes, skill, seed=0, decimals=6):
    """Probabilities that favour the target by `skill`, rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), targets] += skill
    p = np.exp(logits)
    return np.round(p / p.sum(1, keepdims=True), decimals), targets


@pytest.mark.parametrize("decimals", [1, 6])  # many ties, none
@pytest.mark.parametrize("classes", [2, 3, 12])
def test_areas_are_scikit_learns(classes, decimals):
    p, t = skilled(90, classes, 1.0, decimals=decimals)
    one_hot = np.eye(classes)[t]
    s = scores(p, t, resamples=0)
    assert s["auc_pr_macro"] == pytest.approx(average_precision_score(one_hot, p, average="macro"))
    assert s["auc_pr_micro"] == pytest.approx(average_precision_score(one_hot, p, average="micro"))
    assert s["auc_roc_macro"] == pytest.approx(roc_auc_score(one_hot, p, average="macro"))
    assert s["auc_roc_micro"] == pytest.approx(roc_auc_score(one_hot, p, average="micro"))
    assert s["per_class"]["auc_pr"] == pytest.approx(list(average_precision_score(one_hot, p, average=None)))


def test_classes_without_a_positive_are_left_out_and_counted():
    p, t = skilled(60, 3, 1.0)
    wide = np.hstack([p * 0.9, np.full((60, 4), 0.025)])
    s = scores(wide, t, resamples=20)
    assert (s["classes"], s["classes_covered"]) == (7, 3)
    assert s["auc_pr_macro"] == pytest.approx(scores(p, t, resamples=0)["auc_pr_macro"])
    assert s["auc_pr_micro"] == pytest.approx(scores(p, t, resamples=0)["auc_pr_micro"])
    assert s["per_class"]["auc_pr"][3:] == [None] * 4
    assert s["per_class"]["support"][3:] == [0] * 4


def test_missing_targets_change_nothing():
    p, t = skilled(50, 4, 1.0)
    songs = np.array([f"s{i // 2}" for i in range(50)])
    more = np.vstack([p, np.full((7, 4), 0.25)])
    with_missing = scores(more, np.append(t, [MISSING] * 7), np.append(songs, ["x"] * 7))
    assert with_missing == scores(p, t, songs)
    assert with_missing["n"] == 50
    assert with_missing["n_songs"] == 25


def test_perfect_and_reversed_scores():
    t = np.arange(12) % 4
    s = scores(np.eye(4)[t], t)
    assert {s[name] for name in (*HEADLINES, "auc_pr_micro", "auc_roc_micro")} == {1.0}
    assert s["ci"]["auc_pr_macro"] == [1.0, 1.0]
    assert (s["nll"], s["ece"]) == (0, 0)
    worst = scores((1 - np.eye(4)[t]) / 3, t, resamples=0)
    assert (worst["auc_roc_macro"], worst["top_1"]) == (0, 0)


def test_top_5_and_ties():
    p = np.tile(np.linspace(0.2, 0.1, 8), (8, 1))
    s = scores(p, np.arange(8), resamples=0)
    assert (s["top_1"], s["top_5"]) == (1 / 8, 5 / 8)
    flat = scores(np.full((8, 8), 1 / 8), np.arange(8), resamples=0)
    assert (flat["top_1"], flat["top_5"]) == (1 / 8, 5 / 8)  # never all right by a tie


def test_a_constant_score_has_the_prevalence_as_its_area():
    t = np.array([0] * 6 + [1] * 3 + [2])
    prior = class_prior(t, 3)
    s = scores(np.tile(prior, (10, 1)), t, resamples=0)
    assert s["per_class"]["auc_pr"] == pytest.approx([0.6, 0.3, 0.1])
    assert s["per_class"]["auc_roc"] == [0.5] * 3
    assert s["top_1"] == s["chance"]["majority"] == 0.6
    assert s["chance"]["prevalence"] == pytest.approx(1 / 3)
    assert s["ece"] == pytest.approx(0, abs=1e-12)


def test_chance_of_a_random_order_is_what_random_orders_score():
    t = np.repeat([0, 1, 2], [1, 3, 16])
    rng = np.random.default_rng(0)
    found = [scores(rng.random((20, 3)), t, resamples=0) for _ in range(800)]
    for name in ("auc_pr_macro", "auc_pr_micro"):
        assert chance(t, 3)[name] == pytest.approx(np.mean([s[name] for s in found]), abs=0.015)
    assert chance(t, 3)["auc_pr_macro"] > chance(t, 3)["prevalence"] + 0.05


def test_resampling_is_a_weighting_of_songs():
    p, t = skilled(40, 3, 0.5)
    songs = np.repeat(np.arange(8), 5)
    draws = bootstrap([p], t, songs, resamples=30, seed=3)[0]
    counts = np.random.default_rng(3).multinomial(8, np.full(8, 1 / 8), size=30)
    for r in range(30):
        rows = np.concatenate([np.tile(np.flatnonzero(songs == g), counts[r, g]) for g in range(8)])
        s = scores(p[rows], t[rows], resamples=0)
        assert {name: draws[name][r] for name in HEADLINES} == pytest.approx({name: s[name] for name in HEADLINES})


def test_segments_of_a_song_are_no_independent_evidence():
    p, t = skilled(30, 3, 0.8)
    songs = np.array([f"s{i}" for i in range(30)])
    alone = scores(p, t, songs)["ci"]["top_1"]
    copied = scores(np.repeat(p, 20, 0), np.repeat(t, 20), np.repeat(songs, 20))["ci"]["top_1"]
    assert copied == pytest.approx(alone, abs=1e-9)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    def top_1_interval(seed):
        p, t = skilled(100, 4, 1.0, seed)
        return scores(p, t, resamples=200)["ci"]["top_1"]

    truth = scores(*skilled(100_000, 4, 1.0, 999), resamples=0)["top_1"]
    covered = sum(low <= truth <= high for low, high in map(top_1_interval, range(100)))
    assert 86 <= covered <= 100


def test_interval_of_few_songs_a_class_is_about_the_value_and_covers():
    def found(seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(34, 34)) + 1.5 * np.eye(34) + np.eye(34) * rng.normal(0, 0.7, 34)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        s = scores(p, np.arange(34), resamples=100)
        return s["auc_pr_macro"], *s["ci"]["auc_pr_macro"]

    values, lows, highs = np.array([found(seed) for seed in range(60)]).T
    assert ((lows < values) & (values < highs)).all()
    truth = values.mean()
    assert ((lows <= truth) & (truth <= highs)).mean() > 0.8


def test_difference_is_paired():
    p, t = skilled(60, 4, 1.0)
    songs = np.arange(60)
    same = bootstrap([p, p], t, songs, resamples=100)
    assert all((same[0][name] == same[1][name]).all() for name in HEADLINES)
    better = p.copy()
    better[np.arange(60), t] += 0.2
    of_better, of_p = (found["auc_pr_macro"] for found in bootstrap([better, p], t, songs, resamples=300))
    low, high = np.percentile(of_better - of_p, (2.5, 97.5))
    assert low > 0
    alone = confidence_interval(of_p, 0.5)
    assert high - low < alone[1] - alone[0]


def test_reliability_and_its_error_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    t = np.array([0, 1, 1, 0])
    bins = reliability(p, t)
    assert [(b["low"], b["count"], b["accuracy"]) for b in bins] == [(0.6, 1, 1.0), (0.7, 1, 1.0), (0.9, 2, 0.5)]
    assert calibration_error(p, t) == pytest.approx((0.4 + 0.3 + 2 * 0.4) / 4)


def test_language_is_the_sum_over_its_artists():
    artist = np.array([[0.5, 0.2, 0.2, 0.1], [0, 0, 0, 1.0]])
    p = language_of_artists(artist, np.array([0, 0, 1, MISSING]), 3)
    assert p == pytest.approx(np.array([[0.7 / 0.9, 0.2 / 0.9, 0], [1 / 3, 1 / 3, 1 / 3]]))


def test_prior_of_nothing_is_uniform():
    assert class_prior(np.array([MISSING, MISSING]), 4).tolist() == [0.25] * 4
    assert class_prior(np.array([1, MISSING, 1, 0]), 3) == pytest.approx([1 / 3, 2 / 3, 0])


@pytest.mark.parametrize(("n", "classes"), [(0, 3), (1, 1), (1, 3), (5, 1)])
def test_edges_are_json_and_not_nan(n, classes):
    s = scores(np.full((n, classes), 1 / classes), np.zeros(n, int))
    json.dumps(s, allow_nan=False)
    assert s["auc_pr_macro"] is None if n == 0 else s["top_5"] == 1
    assert s["auc_roc_macro"] is None
    assert s["ci"]["auc_roc_macro"] is None


def test_shapes_and_targets_are_checked():
    with pytest.raises(ValueError, match="do not fit"):
        scores(np.ones((3, 2)) / 2, np.zeros(4, int))
    with pytest.raises(ValueError, match=r"targets must be.*got 0 to 2"):
        scores(np.ones((3, 2)) / 2, np.arange(3))


def test_the_papers_size_takes_seconds():
    p, t = skilled(34 * 40, 68, 1.0)
    start = time.process_time()
    scores(p, t, np.repeat(np.arange(34), 40), resamples=200)
    assert time.process_time() - start < 10
