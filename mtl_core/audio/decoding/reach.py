"""Reach: what is decoded of a recording beyond what is asked for."""

import math

SAMPLE_RATE_HZ = 16_000
WHOLE_S = 30  # a shorter recording is decoded once and kept: seeks would cost as much
_MARGIN_FRAMES = 1_024  # on each side; in proportion above 48 kHz


def margin_frames(rate_hz: int) -> int:
    """The frames that are decoded on each side of a segment, so that the resampler sees what lies around it."""
    return max(_MARGIN_FRAMES, -(-_MARGIN_FRAMES * rate_hz // 48_000))


def grid_frames(rate_hz: int) -> int:
    """The frames after which this rate and 16 kHz have a sample at one time: decoding begins at a multiple of them."""
    return rate_hz // math.gcd(rate_hz, SAMPLE_RATE_HZ)
