import numpy as np
import pytest
from test_run_store import SEGMENTS, SONGS
from test_table1 import MULTI_ARTIST, cells, results

from mtl_core.experiments.pooling import complete_cells, pool


def test_pooled_folds_hold_every_song_once_and_a_song_tested_twice_is_an_error():
    found = cells(results())
    for level, n in (("tracks", 1), ("segments", SEGMENTS)):
        pooled = pool(found, MULTI_ARTIST, level)
        assert len(pooled) == 2
        for samples in pooled:
            songs, counts = np.unique(samples.songs_N, return_counts=True)
            assert len(songs) == 4 * SONGS
            assert set(counts) == {n}
            assert samples.p_NC.sum(1) == pytest.approx(np.ones(len(samples.t_N)))
    twice = found | {(0, 7): found[0, 0]}
    with pytest.raises(ValueError, match="folds of one seed test a song twice"):
        pool(twice, MULTI_ARTIST, "tracks")


def test_folds_are_those_of_the_seeds_that_have_most():
    found = cells(results())
    assert complete_cells({cell: of for cell, of in found.items() if cell != (1, 3)}).keys() == {
        (0, f) for f in range(SONGS)
    }
    assert len(complete_cells(found)) == 2 * SONGS
