import numpy as np
import pytest

from mtl_core.inference.tagging.segment_grouping import group_by_track


def test_segments_in_any_order_become_one_array_for_each_track():
    rng = np.random.default_rng(0)
    tracks = {"b": 3, "a": 1, "c": 5}
    rows = [(track, segment) for track, n in tracks.items() for segment in range(n)]
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    values = np.array([[ord(track), segment] for track, segment in shuffled])
    segment_S = np.array([segment for _, segment in shuffled])
    grouped = group_by_track(
        list(tracks), [track for track, _ in shuffled], {"x": values, "y": values[:, 1]}, segment_S
    )
    assert [x.tolist() for x in grouped["x"]] == [[[ord(track), i] for i in range(n)] for track, n in tracks.items()]
    assert [y.tolist() for y in grouped["y"]] == [list(range(n)) for n in tracks.values()]


def test_without_positions_the_segments_of_a_track_keep_their_order():
    grouped = group_by_track([7, 3], np.array([3, 7, 3, 3]), {"x": np.array([2, 0, 1, 5])})
    assert [x.tolist() for x in grouped["x"]] == [[0], [2, 1, 5]]


def test_tracks_and_segments_must_belong_together():
    with pytest.raises(ValueError, match="track 'b', which is not among the tracks"):
        group_by_track(["a"], ["a", "b"], {})
    with pytest.raises(ValueError, match="track 'b' has no segment"):
        group_by_track(["a", "b"], ["a"], {})
