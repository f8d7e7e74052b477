"""Segment: the three seconds that the network hears at once; where segments start in an excerpt, and their samples.

Positions are in samples at 16 kHz from the excerpt's start, by integer arithmetic. An excerpt of N samples holds
m = max(1, floor(N / 48000)) segments back to back; of every 20 of these `segments_per_excerpt` are kept, evenly spread.
Legend: N samples, S segments.
"""

import hashlib

import numpy as np

SEGMENT_SAMPLES = 48_000
MAX_SEGMENTS_PER_EXCERPT = 20  # 60 s back to back


def segment_starts(n_samples: int, segments_per_excerpt: int) -> np.ndarray:
    """The fixed grid: first samples (S,) int64 of the segments of an excerpt, ascending.

    S = ceil(m segments_per_excerpt / 20); segment i is centred in the i-th of S equal parts. Under 3 s: one, at 0.

    Args:
        n_samples: length of the excerpt, 1 or more.
        segments_per_excerpt: 1 to 20, of an excerpt of 60 s; 20 is back to back.

    Raises:
        ValueError: an argument out of its range.
    """
    held, kept = _slots(n_samples, segments_per_excerpt)
    return (2 * np.arange(kept) + 1) * held * SEGMENT_SAMPLES // (2 * kept) - SEGMENT_SAMPLES // 2


def drawn_starts(
    n_samples: int, segments_per_excerpt: int, draws: int, seed: int, track_id: str, excerpt_index: int
) -> np.ndarray:
    """Random starts: first samples (S draws,) int64, the draws of a slot adjacent, in the order of the slots.

    A slot is the i-th of the S equal parts of `segment_starts`; a segment's centre is uniform in its slot, as far as
    the excerpt's ends allow. The result depends on the arguments alone, not on what was drawn before.

    Raises:
        ValueError: an argument out of its range.
    """
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, got {draws}")
    held, kept = _slots(n_samples, segments_per_excerpt)
    key = hashlib.sha256(repr((seed, track_id, excerpt_index)).encode()).digest()
    uniform_SD = np.random.Generator(np.random.PCG64(int.from_bytes(key))).random((kept, draws))
    centres_SD = (np.arange(kept)[:, None] + uniform_SD) * held * SEGMENT_SAMPLES / kept
    starts_SD = np.floor(centres_SD).astype(np.int64) - SEGMENT_SAMPLES // 2
    return np.clip(starts_SD, 0, max(0, n_samples - SEGMENT_SAMPLES)).reshape(-1)


def slice_segments(samples: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The segments (S, 48000) float32 of an excerpt (N,) that start at (S,); under 3 s it is repeated to fill one.

    Raises:
        ValueError: no samples, or a segment reaches beyond the excerpt.
    """
    if len(samples) == 0:
        raise ValueError("an excerpt must have 1 sample or more, got 0")
    if len(samples) < SEGMENT_SAMPLES:
        samples = np.resize(samples, SEGMENT_SAMPLES)
    if len(starts) and not 0 <= starts.min() <= starts.max() <= len(samples) - SEGMENT_SAMPLES:
        raise ValueError(f"starts must be 0 to {len(samples) - SEGMENT_SAMPLES}, got {starts}")
    return np.lib.stride_tricks.sliding_window_view(samples, SEGMENT_SAMPLES)[starts].astype(np.float32, copy=False)


def _slots(n_samples: int, segments_per_excerpt: int) -> tuple[int, int]:
    """(m, q): the segments that an excerpt holds back to back, and how many of them are kept."""
    if n_samples < 1:
        raise ValueError(f"an excerpt must have 1 sample or more, got {n_samples}")
    if not 1 <= segments_per_excerpt <= MAX_SEGMENTS_PER_EXCERPT:
        raise ValueError(f"segments_per_excerpt must be 1 to {MAX_SEGMENTS_PER_EXCERPT}, got {segments_per_excerpt}")
    held = max(1, n_samples // SEGMENT_SAMPLES)
    return held, -(-held * segments_per_excerpt // MAX_SEGMENTS_PER_EXCERPT)
