import numpy as np
import pytest
from builders.scores import skilled

from mtl_core.evaluation.bootstrap import (
    HEADLINES,
    confidence_interval,
    draw_songs,
    score_resamples,
    score_resamples_by_rank,
)
from mtl_core.evaluation.class_scores import ArrayScores
from mtl_core.evaluation.metrics import scores
from mtl_core.evaluation.ranking import ap_and_auroc_per_class, rank, target_ranks, top_k_hits


def test_a_resample_scores_like_the_repeated_samples_of_its_songs():
    p, t = skilled(40, 3, 0.5)
    songs = np.repeat(np.arange(8), 5)
    resampled = score_resamples(p, t, songs, draw_songs(songs, resamples=30, seed=3))
    counts = np.random.default_rng(3).multinomial(8, np.full(8, 1 / 8), size=30)
    for r in range(30):
        rows = np.concatenate([np.tile(np.flatnonzero(songs == g), counts[r, g]) for g in range(8)])
        s = scores(p[rows], t[rows], resamples=0)
        assert {name: resampled[name][r] for name in HEADLINES} == pytest.approx({name: s[name] for name in HEADLINES})


def test_intervals_by_rank_are_close_to_the_exact_ones_and_exact_without_other_classes():
    p, t = skilled(400, 40, 2.5)
    songs = np.arange(400)
    draws = draw_songs(songs, resamples=100, seed=0)
    ranks, hits = rank(ArrayScores(p), t), top_k_hits(target_ranks(p, t))
    exact, by_rank = score_resamples(p, t, songs, draws), score_resamples_by_rank(ranks, hits, songs, draws)
    for name in ("top_1", "top_5"):
        assert by_rank[name] == pytest.approx(exact[name])
    for name in ("auc_pr_macro", "auc_roc_macro"):
        assert np.std(by_rank[name]) == pytest.approx(np.std(exact[name]), rel=0.1)
        assert np.corrcoef(by_rank[name], exact[name])[0, 1] > 0.95


def test_the_slopes_are_the_derivatives_of_the_areas():
    p, t = skilled(60, 5, 1.0, decimals=1)  # with ties
    ranks = rank(ArrayScores(p), t)
    for i in (0, 31, 59):
        w_RN = np.ones((2, 60))
        w_RN[:, i] += (1e-5, -1e-5)
        others = np.arange(5) != t[i]
        areas = ap_and_auroc_per_class(p, t, w_RN)
        slopes = [(area_CR[others] @ (1, -1)).sum() / 2e-5 / 5 for area_CR in areas]
        assert slopes == pytest.approx([ranks.ap_slope_N[i], ranks.auroc_slope_N[i]], abs=1e-6)


def test_more_segments_of_a_song_do_not_narrow_the_interval():
    p, t = skilled(30, 3, 0.8)
    songs = np.array([f"s{i}" for i in range(30)])
    alone = scores(p, t, songs)["ci"]["top_1"]
    copied = scores(np.repeat(p, 20, 0), np.repeat(t, 20), np.repeat(songs, 20))["ci"]["top_1"]
    assert copied == pytest.approx(alone, abs=1e-9)


def test_95_percent_intervals_contain_the_true_value_in_86_to_100_percent_of_runs():
    def top_1_interval(seed):
        p, t = skilled(100, 4, 1.0, seed)
        return scores(p, t, resamples=200)["ci"]["top_1"]

    truth = scores(*skilled(100_000, 4, 1.0, 999), resamples=0)["top_1"]
    covered = sum(low <= truth <= high for low, high in map(top_1_interval, range(100)))
    assert 86 <= covered <= 100


def test_with_one_song_a_class_the_interval_is_around_the_value_and_contains_the_truth():
    def score_and_interval(seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(34, 34)) + 1.5 * np.eye(34) + np.eye(34) * rng.normal(0, 0.7, 34)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        s = scores(p, np.arange(34), resamples=100)
        return s["auc_pr_macro"], *s["ci"]["auc_pr_macro"]

    values, lows, highs = np.array([score_and_interval(seed) for seed in range(60)]).T
    assert ((lows < values) & (values < highs)).all()
    truth = values.mean()
    assert ((lows <= truth) & (truth <= highs)).mean() > 0.8


def test_differences_on_the_same_draws_have_narrower_intervals():
    p, t = skilled(60, 4, 1.0)
    songs = np.arange(60)
    draws = draw_songs(songs, resamples=300, seed=0)
    better = p.copy()
    better[np.arange(60), t] += 0.2
    better_R, worse_R = (score_resamples(x, t, songs, draws)["auc_pr_macro"] for x in (better, p))
    low, high = np.percentile(better_R - worse_R, (2.5, 97.5))
    assert low > 0
    unpaired = confidence_interval(worse_R, 0.5)
    assert high - low < unpaired[1] - unpaired[0]
