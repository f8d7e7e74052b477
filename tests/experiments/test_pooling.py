import numpy as np
import pytest
from builders.experiments import SEGMENTS, SONGS, make_results

from mtl_core.experiments.pooling import MULTI, SYSTEMS, complete_cells, group_runs, pool

MULTI_ARTIST = next(system for system in SYSTEMS if (system.task, system.name) == ("artist", MULTI))


def cells():
    (group,) = group_runs(make_results())
    return group.cells


def test_pooled_folds_have_every_song_once():
    for level, n in (("tracks", 1), ("segments", SEGMENTS)):
        pooled = pool(cells(), MULTI_ARTIST, level)
        assert len(pooled) == 2
        for samples in pooled:
            songs, counts = np.unique(samples.songs_N, return_counts=True)
            assert len(songs) == 4 * SONGS
            assert set(counts) == {n}
            assert samples.p_NC.sum(1) == pytest.approx(np.ones(len(samples.t_N)))


def test_a_song_in_two_folds_of_a_seed_is_an_error():
    with pytest.raises(ValueError, match="folds of one seed test a song twice"):
        pool(cells() | {(0, 7): cells()[0, 0]}, MULTI_ARTIST, "tracks")


def test_only_the_seeds_with_the_most_complete_folds_are_scored():
    without_a_cell = {at: cell for at, cell in cells().items() if at != (1, 3)}
    assert complete_cells(without_a_cell).keys() == {(0, fold) for fold in range(SONGS)}
    assert len(complete_cells(cells())) == 2 * SONGS


def test_groups_are_by_recipe_and_epochs_and_name_the_runs_that_are_left_out():
    results = [*make_results(recipe="b", seeds=(0,)), *make_results(recipe="a")[:-1]]
    first, second = group_runs(results)
    assert [(group.recipe, group.epochs) for group in (first, second)] == [("a", 2), ("b", 2)]
    assert first.describe() == {
        "epochs": 2,
        "seeds": [0],
        "folds": [0, 1, 2, 3, 4],
        "left_out": sorted(result.run.key for result in results[15:] if result.run.seed == 1),
    }
    assert second.describe()["left_out"] == []
