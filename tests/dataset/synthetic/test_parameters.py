"""Points of the unit cube, and the languages and artists made from them."""

import numpy as np
import pytest

from mtl_core.dataset.synthetic import parameters


@pytest.mark.parametrize("count", [1, 2, 16, 150])
def test_the_points_of_a_hypercube_are_evenly_spread_in_each_dimension(count):
    points = parameters.spread(count, 5, None, np.random.default_rng(0))
    np.testing.assert_allclose(np.sort(points, axis=0), np.tile((np.arange(count) + 0.5)[:, None] / count, 5))


def test_points_with_a_deviation_are_around_the_middle():
    points = parameters.spread(2000, 5, 0.1, np.random.default_rng(0))
    assert points.min() >= 0 and points.max() <= 1
    np.testing.assert_allclose(points.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(points.std(axis=0), 0.1, atol=0.01)


@pytest.mark.parametrize("u", [0.0, 0.5, 1.0])
def test_every_point_gives_a_possible_language_and_artist(u):
    language = parameters.language_at(np.full(parameters.LANGUAGE_DIMENSIONS, u))
    assert language.vowel_share.sum() == pytest.approx(1)
    assert language.onset_share.sum() == pytest.approx(1)
    assert (np.diff(language.vowel_hz, axis=1) > 0).all()  # F1 < F2 < F3
    assert language.phrase_beats >= 3
    artist = np.full(parameters.ARTIST_DIMENSIONS, u)
    assert 80 <= parameters.singer_at(artist).register_hz <= 450
    assert parameters.instruments_at(artist).octave in (-1, 0, 1)
