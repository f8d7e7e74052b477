"""The scores that tell unknown artists, and the threshold that keeps a stated precision."""

import numpy as np
import pytest
from scipy.special import softmax

from mtl_core.inference.tagging.unknown import (
    NOTHING_IS_NAMED,
    SCORES,
    choose_threshold,
    precision_and_coverage,
    unknown_scores,
)


def tracks(seed, known_artists, unknown_artists, songs=5):
    """(scores, right, known, artists): the artists differ, and so do their songs."""
    rng = np.random.default_rng(seed)
    known_N = np.repeat(np.arange(known_artists + unknown_artists) < known_artists, songs)
    artist_N = np.repeat(np.arange(known_artists + unknown_artists), songs)
    level_A = np.where(np.arange(known_artists + unknown_artists) < known_artists, 1.4, 0) + rng.normal(
        0, 0.7, known_artists + unknown_artists
    )
    scores_N = level_A[artist_N] + rng.normal(0, 0.7, len(artist_N))
    right_N = known_N & (rng.random(len(artist_N)) < 1 / (1 + np.exp(-1.5 * (scores_N + 0.5))))
    return scores_N, right_N, known_N, artist_N


def test_the_precision_holds_on_new_artists():
    new = tracks(99, 4000, 4000)
    reached, coverage = [], []
    for seed in range(20):
        threshold = choose_threshold(*tracks(seed, 68, 68), precision=0.9, unknown_share=0.5)
        precision, covered = precision_and_coverage(*new[:3], np.array([threshold]), unknown_share=0.5)
        reached.append(precision[0])
        coverage.append(covered[0])
    assert np.nanmean(reached) >= 0.93  # nan: nothing was named
    assert np.mean(np.array(reached) < 0.88) <= 0.05
    assert np.mean(coverage) > 0.1


def test_more_unknown_tracks_in_the_catalogue_raise_the_threshold():
    thresholds = [choose_threshold(*tracks(0, 300, 300), precision=0.8, unknown_share=s) for s in (0.1, 0.5, 0.9)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[2]


def test_where_the_precision_is_out_of_reach_nothing_is_named():
    scores_N, right_N, known_N, artist_N = tracks(0, 30, 30)
    shuffled_N = np.random.default_rng(0).permutation(scores_N)
    chosen = choose_threshold(shuffled_N, right_N, known_N, artist_N, precision=0.95, unknown_share=0.5)
    assert chosen == NOTHING_IS_NAMED
    few = slice(0, 6)  # a few songs that are all right prove little
    arrays = scores_N[few], np.ones(6, bool), np.arange(6) < 5, artist_N[few]
    assert choose_threshold(*arrays, precision=0.95, unknown_share=0.1) == NOTHING_IS_NAMED


@pytest.mark.parametrize("known", [True, False])
def test_without_known_or_without_unknown_tracks_nothing_is_named(known):
    scores_N, right_N, _, artist_N = tracks(0, 30, 0)
    arrays = scores_N, right_N, np.full(len(scores_N), known), artist_N
    assert choose_threshold(*arrays, precision=0.5, unknown_share=0.5) == NOTHING_IS_NAMED


def test_precision_and_coverage_of_a_small_example():
    scores_N = np.array([4.0, 3, 2, 1])
    right_N, known_N = np.array([True, False, False, True]), np.array([True, True, False, True])
    precision_K, coverage_K = precision_and_coverage(
        scores_N, right_N, known_N, np.array([1.0, 2, 4, 5]), unknown_share=0.5
    )
    assert precision_K[:3] == pytest.approx([1 / 3, (1 / 6) / (1 / 3 + 1 / 2), 1])
    assert np.isnan(precision_K[3])
    assert coverage_K == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_scores_are_higher_for_a_clearer_winner():
    clear, vague = np.array([9.0, 0, 0]), np.array([1.0, 0, 0])
    for name in SCORES:
        first, second = unknown_scores(name, np.stack((clear, vague)), 2.0, np.ones(2), 0.1)
        assert first > second
    one = (vague[None], 2.0, np.array([0.25]), 0.1)
    assert unknown_scores("probability", *one)[0] == pytest.approx(softmax(vague / 2).max())
    assert unknown_scores("logit", *one)[0] == 0.5
    assert unknown_scores("cosine", *one)[0] == 2
    assert unknown_scores("cosine", vague[None], 2.0, np.array([0.25]), 0.5)[0] == 1  # not shorter than that
