"""Segments: the stretches of 3 s that the network takes; where they are in a recording, and their samples.

Two samplings say which segments stand for a recording:

* `spread`: N segments, evenly spread over the whole recording, which counts as one excerpt.
* `paper`, that of Singh & Biswas: a recording under 120 s is one excerpt; a longer one has two excerpts of 60 s, around
  its first and third quarter. An excerpt of N samples holds m = max(1, floor(N / 48000)) segments back to back; of
  every 20 of these `segments_per_excerpt` are kept, evenly spread.

Positions are in samples at 16 kHz from the excerpt's start, by integer arithmetic.

The segments of `spread` can be taken in rounds, until they are enough: 4, 8, 16, 32 … of them, each time all over the
recording.

Legend: N samples, S segments, D draws.
"""

import hashlib
from functools import cache

import numpy as np

SEGMENT_SAMPLES = 48_000
MAX_SEGMENTS_PER_EXCERPT = 20  # 60 s back to back
MAX_SEGMENTS = 1_024  # of the sampling `spread`
FIRST_ROUND = 4  # segments; each further round doubles their number
WHOLE_TO = 8  # a recording of so many segments is taken in one round
EXCERPT_S = 60
WHOLE_BELOW_S = 120


def excerpt_frames(n_frames: int, rate_hz: int) -> list[tuple[int, int]]:
    """The excerpts of the sampling `paper` as (first frame, number of frames), at the recording's own rate."""
    if n_frames < WHOLE_BELOW_S * rate_hz:
        return [(0, n_frames)]
    length = EXCERPT_S * rate_hz
    return [(min(max(quarter * n_frames // 4 - length // 2, 0), n_frames - length), length) for quarter in (1, 3)]


def spread_starts(n_samples: int, segments: int) -> np.ndarray:
    """The sampling `spread`: the first samples (S,) int64 of the segments of a recording, ascending.

    S = min(segments, m); segment i is centred in the i-th of S equal parts. Under 3 s: one, at 0.

    Raises:
        ValueError: `n_samples` is not 1 or more, or `segments` not 1 to 1,024.
    """
    if not 1 <= segments <= MAX_SEGMENTS:
        raise ValueError(f"segments must be 1 to {MAX_SEGMENTS}, got {segments}")
    m = _count_back_to_back(n_samples)
    return _centred_starts(m, min(segments, m))


@cache
def rounds(n_segments: int) -> tuple[np.ndarray, ...]:
    """The rounds in which the segments of a recording are taken: the numbers (R,) int64 of each round's, ascending.

    The order is that of the van der Corput sequence in base 2, an eighth of the recording later. So the first four lie
    at .14, .64, .39 and .89 of it, and not in its intro.

    Raises:
        ValueError: `n_segments` is not 1 or more.
    """
    if n_segments < 1:
        raise ValueError(f"a recording has 1 segment or more, got {n_segments}")
    if n_segments <= WHOLE_TO:
        return (np.arange(n_segments),)
    bits = n_segments.bit_length() + 3
    order: dict[int, None] = {}
    for j in range(1 << bits):
        if len(order) == n_segments:
            break
        reversed_j = int(f"{j:0{bits}b}"[::-1], 2)
        order[n_segments * ((reversed_j + (1 << bits) // 8) % (1 << bits)) >> bits] = None
    taken, ends = np.array([*order]), [FIRST_ROUND]
    while ends[-1] < n_segments:
        ends.append(min(2 * ends[-1], n_segments))
    return tuple(np.sort(part) for part in np.split(taken, ends[:-1]))


def segment_starts(n_samples: int, segments_per_excerpt: int) -> np.ndarray:
    """The fixed grid of an excerpt: the first samples (S,) int64 of its segments, ascending.

    S = ceil(m segments_per_excerpt / 20); segment i is centred in the i-th of S equal parts. Under 3 s: one, at 0.

    Raises:
        ValueError: `n_samples` is not 1 or more, or `segments_per_excerpt` not 1 to 20.
    """
    return _centred_starts(*_count_kept(n_samples, segments_per_excerpt))


def random_starts(
    n_samples: int, n_slots: int, draws: int, seed: int, track_id: str, excerpt_index: int = 0
) -> np.ndarray:
    """Random starts in an excerpt: the first samples (S draws,) int64, slot by slot, the draws of a slot adjacent.

    A slot is one of the S = `n_slots` equal parts of the fixed grid. A segment's centre is uniform in its slot, as far
    as the excerpt's ends allow. The result depends on the arguments alone.

    Args:
        n_samples: of the excerpt.
        draws: segments a slot, 1 or more.
        seed, track_id: of the draws and of the track.
        excerpt_index: the excerpt's place in its track.

    Raises:
        ValueError: an argument is out of its range.
    """
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, got {draws}")
    m = _count_back_to_back(n_samples)
    key = hashlib.sha256(repr((seed, track_id, excerpt_index)).encode()).digest()
    uniform_SD = np.random.Generator(np.random.PCG64(int.from_bytes(key))).random((n_slots, draws))
    centres_SD = (np.arange(n_slots)[:, None] + uniform_SD) * m * SEGMENT_SAMPLES / n_slots
    starts_SD = np.floor(centres_SD).astype(np.int64) - SEGMENT_SAMPLES // 2
    return np.clip(starts_SD, 0, max(0, n_samples - SEGMENT_SAMPLES)).reshape(-1)


def slice_segments(samples: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The segments (S, 48000) float32 of an excerpt (N,) that start at (S,); an excerpt under 3 s is repeated.

    Raises:
        ValueError: the excerpt is empty, or a segment reaches beyond it.
    """
    if len(samples) == 0:
        raise ValueError("an excerpt must have 1 sample or more, got 0")
    if len(samples) < SEGMENT_SAMPLES:
        samples = np.resize(samples, SEGMENT_SAMPLES)
    if len(starts) and not 0 <= starts.min() <= starts.max() <= len(samples) - SEGMENT_SAMPLES:
        raise ValueError(f"starts must be 0 to {len(samples) - SEGMENT_SAMPLES}, got {starts}")
    return np.lib.stride_tricks.sliding_window_view(samples, SEGMENT_SAMPLES)[starts].astype(np.float32, copy=False)


def _centred_starts(m: int, n_segments: int) -> np.ndarray:
    return (2 * np.arange(n_segments) + 1) * m * SEGMENT_SAMPLES // (2 * n_segments) - SEGMENT_SAMPLES // 2


def _count_back_to_back(n_samples: int) -> int:
    """m, the number of segments that an excerpt holds back to back."""
    if n_samples < 1:
        raise ValueError(f"an excerpt must have 1 sample or more, got {n_samples}")
    return max(1, n_samples // SEGMENT_SAMPLES)


def _count_kept(n_samples: int, segments_per_excerpt: int) -> tuple[int, int]:
    """(m, S): the number of segments that an excerpt holds back to back, and how many of them are kept."""
    if not 1 <= segments_per_excerpt <= MAX_SEGMENTS_PER_EXCERPT:
        raise ValueError(f"segments_per_excerpt must be 1 to {MAX_SEGMENTS_PER_EXCERPT}, got {segments_per_excerpt}")
    m = _count_back_to_back(n_samples)
    return m, -(-m * segments_per_excerpt // MAX_SEGMENTS_PER_EXCERPT)
