"""Batches contain every segment once, in equal shares of the workers, with songs mixed, in an order of the seed."""

import numpy as np
import pyarrow as pa
import pytest
from builders.mels import write_mel_files

from mtl_core.dataset.loader import n_batches, select_tracks
from mtl_core.dataset.mel_dataset import open_mel_dataset
from mtl_core.dataset.vocabulary import MISSING
from mtl_core.schema import MEL_SHAPE
from mtl_core.storage.location import Location

#: Segments of the tracks t0 to t9. They are in two files with row groups of 5, so tracks continue over row groups.
SEGMENTS = (3, 1, 7, 4, 2, 9, 5, 3, 6, 8)
TOTAL = sum(SEGMENTS)


@pytest.fixture(scope="module")
def mels(tmp_path_factory):
    """Each mel is full of one number, 100 track + segment."""
    tracks = [
        {"track_id": f"t{track}", "mel": np.stack([np.full(MEL_SHAPE, 100 * track + i, np.float16) for i in range(n)])}
        for track, n in enumerate(SEGMENTS)
    ]
    folder = Location(str(tmp_path_factory.mktemp("mels")))
    return open_mel_dataset(write_mel_files([tracks[5:], tracks[:5]], folder, row_group_size=5))


@pytest.fixture(scope="module")
def whole(mels):
    return select_tracks(mels, mels.tracks["track_id"], {"artist": np.array([*range(9), MISSING])})


def joined(lists):
    return [item for items in lists for item in items]


def numbers(batches):
    """The number in each mel, for each batch."""
    return [batch["mel"][:, 0, 0].astype(int).tolist() for batch in batches]


def numbers_of(*tracks):
    return sorted(100 * track + segment for track in tracks for segment in range(SEGMENTS[track]))


@pytest.mark.parametrize("buffer_segments", [1, 5, 20, 100])
def test_no_batch_has_a_single_segment(whole, buffer_segments):
    """A BatchNorm needs two values."""
    assert TOTAL == 48
    for size in range(2, TOTAL + 2):
        batches = list(whole.shuffled_batches(size, buffer_segments=buffer_segments, seed=0, epoch=1))
        lengths = [len(batch["track"]) for batch in batches]
        assert len(lengths) == n_batches(TOTAL, size)
        assert sum(lengths) == TOTAL and min(lengths) > 1
        assert set(lengths[:-1]) <= {size} and lengths[-1] <= size + 1


def test_ordered_batches_number_the_segments_of_each_track(whole):
    batches = list(whole.ordered_batches(7))
    found = [100 * batch["track"] + batch["segment"] for batch in batches]
    assert joined(found) == joined(numbers(batches))
    assert whole.of_track.tolist() == list(SEGMENTS)


@pytest.mark.parametrize("world_size", [1, 3])
def test_an_epoch_of_some_segments_draws_others_each_time(whole, world_size):
    def drawn(epoch, seed=0):
        batches = [
            whole.shuffled_batches(
                4, buffer_segments=10, seed=seed, epoch=epoch, per_track=3, rank=rank, world_size=world_size
            )
            for rank in range(world_size)
        ]
        return sorted(joined(joined(map(numbers, batches))))

    epochs = [drawn(epoch) for epoch in range(1, 40)]
    assert drawn(1) == epochs[0]
    assert drawn(1, seed=1) != epochs[0] != epochs[1]
    expected = whole.epoch_segments(3) // world_size * world_size
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == expected
        for track, n in enumerate(SEGMENTS):  # one more for each further row group that the track is in
            assert sum(number // 100 == track for number in epoch) <= min(n, 3 + 2)
    assert set(joined(epochs)) == set(numbers_of(*range(10)))


@pytest.mark.parametrize("buffer_segments", [1, 10, 4096])
def test_an_epoch_contains_every_segment_once_in_an_order_of_its_own(whole, buffer_segments):
    epochs = [
        numbers(whole.shuffled_batches(4, buffer_segments=buffer_segments, seed=seed, epoch=epoch))
        for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    assert epochs[0] == epochs[1]
    assert epochs[0] not in epochs[2:]
    for epoch in epochs:
        assert sorted(joined(epoch)) == numbers_of(*range(10))
    assert {len(batch) for batch in epochs[0][:-1]} == {4}


def test_batches_carry_their_tracks_and_classes(whole):
    batches = [*whole.shuffled_batches(4, buffer_segments=9, seed=0, epoch=1), *whole.ordered_batches(4)]
    for batch in batches:
        assert (batch["mel"] == batch["mel"][:, :1, :1]).all()
        np.testing.assert_array_equal(batch["mel"][:, 0, 0] // 100, batch["track"])
        np.testing.assert_array_equal(batch["artist"], np.where(batch["track"] == 9, MISSING, batch["track"]))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_workers_share_an_epoch_equally(whole, world_size):
    shares = [
        numbers(whole.shuffled_batches(4, buffer_segments=8, seed=0, epoch=3, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {sum(map(len, share)) for share in shares} == {TOTAL // world_size}
    assert len({len(share) for share in shares}) == 1
    segments = joined(joined(shares))
    assert len(set(segments)) == len(segments) == TOTAL // world_size * world_size
    assert {len(batch) for batch in numbers(whole.ordered_batches(4))[:-1]} == {4}  # batches continue over row groups
    in_order = joined(numbers(whole.ordered_batches(4, rank=rank, world_size=world_size)) for rank in range(world_size))
    assert joined(in_order) == numbers_of(*range(5, 10)) + numbers_of(*range(5))


def test_a_split_contains_its_tracks_only(mels):
    split = select_tracks(mels, pa.chunked_array([["t2", "t4", "t9"]]), {"artist": np.array([20, 40, 90])})
    batches = list(split.shuffled_batches(4, buffer_segments=5, seed=0, epoch=1))
    assert split.segments == len(joined(numbers(batches)))
    assert sorted(joined(numbers(batches))) == numbers_of(2, 4, 9)
    for batch in batches:
        np.testing.assert_array_equal(batch["artist"], batch["mel"][:, 0, 0] // 100 * 10)
    assert select_tracks(mels, mels.tracks["track_id"][:0], {}).segments == 0
    assert not list(select_tracks(mels, mels.tracks["track_id"][:0], {}).ordered_batches(4))


def test_batches_mix_songs(whole):
    """A buffer of 24 segments holds 5 tracks or more; 8 neighbours in a file would be of 2 or 3."""
    n_tracks = [len(set(batch["track"])) for batch in whole.shuffled_batches(8, buffer_segments=24, seed=0, epoch=1)]
    assert np.mean(n_tracks[:-1]) >= 4


def test_more_workers_than_segments_and_a_share_below_a_batch(mels):
    split = select_tracks(mels, pa.chunked_array([["t1", "t4"]]), {})  # 3 segments
    counts = [len(joined(numbers(split.ordered_batches(4, rank=rank, world_size=5)))) for rank in range(5)]
    assert counts == [0, 1, 0, 1, 1]
    shares = [list(split.shuffled_batches(4, buffer_segments=9, seed=0, epoch=1, rank=r, world_size=2)) for r in (0, 1)]
    assert [[len(batch["track"]) for batch in share] for share in shares] == [[1], [1]]
