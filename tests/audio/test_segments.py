"""Segments lie on the fixed grid, or at random starts that depend on nothing but their arguments."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest

from mtl_core.audio.segments import (
    excerpt_frames,
    random_starts,
    rounds,
    segment_starts,
    slice_segments,
    spread_starts,
)

LENGTHS = [1, 1600, 47_999, 48_000, 48_001, 95_999, 96_000, 480_000, 959_999, 960_000, 1_919_999]


@pytest.mark.parametrize(
    "n_frames, starts",
    [
        (44100 * 120 - 1, [0]),
        (44100 * 120, [0, 44100 * 60]),
        (44100 * 121, [44100 * 121 // 4 - 44100 * 30, 44100 * 121 * 3 // 4 - 44100 * 30]),
        (44100 * 120 + 1, [0, 44100 * 60]),
        (7522752 + 600003, [(8122755 - 3) // 4 - 1323000, 3 * 8122755 // 4 - 1323000]),
    ],
)
def test_excerpts_are_around_the_quarters_and_inside_the_recording(n_frames, starts):
    excerpts = excerpt_frames(n_frames, 44100)
    assert [start for start, _ in excerpts] == starts
    assert all(length == (44100 * 60 if len(starts) == 2 else n_frames) for _, length in excerpts)
    assert all(start + length <= n_frames for start, length in excerpts)


@pytest.mark.parametrize("n_samples", [*LENGTHS, 3_200_000, 57_600_000])
@pytest.mark.parametrize("n", [1, 4, 32, 1024])
def test_spread_segments_are_those_of_the_formula(n_samples, n):
    m = max(1, n_samples // 48_000)
    q = min(n, m)
    expected = [floor((i + Fraction(1, 2)) * m * 48_000 / q) - 24_000 for i in range(q)]
    starts = spread_starts(n_samples, n)
    assert starts.dtype == np.int64 and starts.tolist() == expected
    assert starts[0] >= 0 and starts[-1] + 48_000 <= max(n_samples, 48_000)


@pytest.mark.parametrize("n_samples", LENGTHS)
@pytest.mark.parametrize("k", [1, 2, 3, 7, 13, 19, 20])
def test_the_grid_is_that_of_the_formula(n_samples, k):
    m = max(1, n_samples // 48_000)
    q = ceil(Fraction(m * k, 20))
    expected = [floor((i + Fraction(1, 2)) * m * 48_000 / q) - 24_000 for i in range(q)]
    starts = segment_starts(n_samples, k)
    assert starts.dtype == np.int64 and starts.tolist() == expected
    assert starts[0] >= 0 and starts[-1] + 48_000 <= max(n_samples, 48_000)
    assert (np.diff(starts) >= 48_000).all()


def test_twenty_segments_are_back_to_back_and_two_are_those_of_the_paper():
    assert segment_starts(960_000, 20).tolist() == list(range(0, 960_000, 48_000))
    assert segment_starts(960_000, 2).tolist() == [216_000, 696_000]
    assert segment_starts(100_000, 20).tolist() == [0, 48_000]  # the remainder is dropped


@pytest.mark.parametrize("n_samples", LENGTHS)
@pytest.mark.parametrize("k", [1, 7, 20])
def test_draws_stay_in_their_slots_and_in_the_excerpt(n_samples, k):
    m, q = max(1, n_samples // 48_000), len(segment_starts(n_samples, k))
    starts = random_starts(n_samples, q, 5, 0, "track", 0)
    assert starts.dtype == np.int64 and starts.shape == (5 * q,)
    assert starts.min() >= 0 and starts.max() <= max(0, n_samples - 48_000)
    centres = starts.reshape(q, 5) + 24_000
    for i, slot in enumerate(centres):
        allowed = np.clip([i * m * 48_000 / q - 1, (i + 1) * m * 48_000 / q], 24_000, max(24_000, n_samples - 24_000))
        assert (slot >= allowed[0] - 1).all() and (slot <= allowed[1]).all()


def test_draws_depend_on_seed_track_and_excerpt_alone():
    def starts_of(seed=0, track_id="a", excerpt=0):
        return random_starts(960_000, 20, 3, seed, track_id, excerpt).tolist()

    first = starts_of()
    others = [
        starts_of(seed=1),
        starts_of(track_id="b"),
        starts_of(excerpt=1),
        starts_of(track_id="a0"),
        starts_of(seed=-1),
    ]
    assert starts_of() == first
    assert len({tuple(starts) for starts in [first, *others]}) == 6


def test_draws_are_uniform_over_the_slot():
    centres = random_starts(960_000, 1, 20_000, 0, "track", 0) + 24_000
    inside = centres[(centres > 24_000) & (centres < 936_000)]
    counts, _ = np.histogram(inside, 10, (24_000, 936_000))
    assert (np.abs(counts / len(inside) - 0.1) < 0.01).all()


def test_a_segment_has_the_samples_from_its_start_on():
    samples = np.arange(200_000, dtype=np.float32)
    segments_SN = slice_segments(samples, np.array([0, 150, 152_000]))
    assert segments_SN.shape == (3, 48_000) and segments_SN.dtype == np.float32
    assert segments_SN[:, 0].tolist() == [0, 150, 152_000] and segments_SN[2, -1] == 199_999


def test_a_short_excerpt_is_repeated():
    samples = np.arange(1, 20_001, dtype=np.float32)
    (segment,) = slice_segments(samples, segment_starts(20_000, 20))
    np.testing.assert_array_equal(segment, np.tile(samples, 3)[:48_000])


@pytest.mark.parametrize("k", [0, 21, -1])
def test_the_error_names_segments_per_excerpt(k):
    with pytest.raises(ValueError, match=f"1 to 20, got {k}"):
        segment_starts(960_000, k)


def test_the_error_names_other_wrong_arguments():
    with pytest.raises(ValueError, match="got 0"):
        segment_starts(0, 20)
    with pytest.raises(ValueError, match="draws"):
        random_starts(960_000, 20, 0, 0, "track", 0)
    for n in (0, 1025):
        with pytest.raises(ValueError, match=f"1 to 1024, got {n}"):
            spread_starts(960_000, n)
    with pytest.raises(ValueError, match="0 to 12000"):
        slice_segments(np.zeros(60_000, np.float32), np.array([12_001]))
    with pytest.raises(ValueError, match="got 0"):
        slice_segments(np.zeros(0, np.float32), np.array([0]))


@pytest.mark.parametrize("n", [1, 8, 9, 12, 20, 31, 32, 33, 40, 100, 1024])
def test_rounds_are_those_of_the_formula(n):
    """The j-th number is floor(n frac(v(j) + 1/8)) with the van der Corput sequence v in base 2, repeats skipped."""
    order, j = [], 0
    while len(order) < n:
        v = sum(Fraction(int(bit), 2 ** (i + 1)) for i, bit in enumerate(f"{j:b}"[::-1]))
        number = floor(n * ((v + Fraction(1, 8)) % 1))
        order += [number] if number not in order else []
        j += 1
    taken = rounds(n)
    ends = np.cumsum([len(numbers) for numbers in taken]).tolist()
    assert ends == ([n] if n <= 8 else [end for end in (4, 8, 16, 32, 64, 128, 256, 512, 1024) if end < n] + [n])
    for numbers, first, end in zip(taken, [0, *ends], ends, strict=False):
        assert numbers.tolist() == (sorted(order[first:end]) if n > 8 else list(range(n)))


def test_the_first_round_is_all_over_the_recording():
    assert (rounds(32)[0] + 0.5).tolist() == [4.5, 12.5, 20.5, 28.5]
