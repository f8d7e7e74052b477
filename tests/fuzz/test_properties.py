"""Lengths, excerpts and segments are those of their formulas, for any length and rate; parsers take any bytes."""

import io
import re
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.containers import Part, find_parts, find_sound, has_signature, with_frame_count
from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ, read_stretches, resample, resampled_length
from mtl_core.audio.decoding.headers.mpeg import tag_bytes
from mtl_core.audio.front_end import FrontEnd, log_mel_segments
from mtl_core.audio.segments import (
    EXCERPT_S,
    MAX_SEGMENTS,
    SEGMENT_SAMPLES,
    WHOLE_BELOW_S,
    excerpt_frames,
    random_starts,
    segment_starts,
    spread_starts,
)

settings.register_profile("same in every run", derandomize=True, deadline=None, database=None, max_examples=200)
settings.load_profile("same in every run")

LENGTHS = st.integers(1, 10**7) | st.integers(1, 10**10) | st.sampled_from([47_999, 48_000, 48_001, 95_999, 96_000])
RATES_HZ = st.integers(8_000, 192_000) | st.sampled_from([8_000, 11_025, 11_127, 22_050, 44_100, 48_000, 96_000])
SEGMENTS = st.integers(1, 40) | st.integers(1, MAX_SEGMENTS)


class ArraySound:
    """A sound of an array of samples, which refuses to be read beyond its ends."""

    def __init__(self, samples: np.ndarray, rate_hz: int) -> None:
        self._samples, self.rate_hz, self.n_frames = samples, rate_hz, len(samples)

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        assert start >= 0 and length >= 1 and start + length <= self.n_frames
        return self._samples[start : start + length], 0

    def close(self) -> None:
        pass


def noise(seconds: float, rate_hz: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, max(1, round(seconds * rate_hz))).astype(np.float32)


@given(LENGTHS, RATES_HZ | st.integers(1, 10**6))
def test_excerpts_are_the_whole_or_a_minute_around_each_of_two_quarters(n_frames, rate_hz):
    excerpts = excerpt_frames(n_frames, rate_hz)
    if n_frames < WHOLE_BELOW_S * rate_hz:
        assert excerpts == [(0, n_frames)]
        return
    (first, length), (second, second_length) = excerpts
    assert length == second_length == EXCERPT_S * rate_hz
    assert first >= 0 and first + length <= second and second + length <= n_frames
    for start, quarter in zip((first, second), (1, 3), strict=True):
        assert abs(start + Fraction(length, 2) - Fraction(quarter * n_frames, 4)) <= 1


@given(LENGTHS, SEGMENTS)
def test_spread_segments_are_centred_in_equal_parts_and_do_not_overlap(n_samples, segments):
    m = max(1, n_samples // SEGMENT_SAMPLES)
    count = min(segments, m)
    starts = spread_starts(n_samples, segments)
    part = Fraction(m * SEGMENT_SAMPLES, count)
    assert starts.tolist() == [floor((i + Fraction(1, 2)) * part) - SEGMENT_SAMPLES // 2 for i in range(count)]
    assert starts[0] >= 0 and starts[-1] + SEGMENT_SAMPLES <= max(n_samples, SEGMENT_SAMPLES)
    assert (np.diff(starts) >= SEGMENT_SAMPLES).all()


@given(st.integers(1, 10**7), st.integers(1, 20))
def test_segments_of_an_excerpt_ascend_inside_it(n_samples, segments_per_excerpt):
    m = max(1, n_samples // SEGMENT_SAMPLES)
    starts = segment_starts(n_samples, segments_per_excerpt)
    assert len(starts) == -(-m * segments_per_excerpt // 20)
    assert starts[0] >= 0 and starts[-1] + SEGMENT_SAMPLES <= max(n_samples, SEGMENT_SAMPLES)
    assert (np.diff(starts) >= SEGMENT_SAMPLES).all()


@settings(max_examples=100)
@given(LENGTHS, SEGMENTS, st.integers(1, 5), st.integers(-(2**70), 2**70), st.text())
def test_random_segments_lie_in_their_slots_inside_the_recording(n_samples, segments, draws, seed, track_id):
    n_slots, m = len(spread_starts(n_samples, segments)), max(1, n_samples // SEGMENT_SAMPLES)
    starts = random_starts(n_samples, n_slots, draws, seed, track_id)
    assert starts.shape == (n_slots * draws,)
    assert starts.min() >= 0 and starts.max() <= max(0, n_samples - SEGMENT_SAMPLES)
    ends = np.arange(n_slots + 1) * m * SEGMENT_SAMPLES / n_slots - SEGMENT_SAMPLES // 2
    low, high = (np.clip(ends, 0, max(0, n_samples - SEGMENT_SAMPLES)) for _ in range(2))
    slots = starts.reshape(n_slots, draws)
    assert (slots >= np.floor(low[:-1, None])).all() and (slots <= np.ceil(high[1:, None])).all()
    np.testing.assert_array_equal(random_starts(n_samples, n_slots, draws, seed, track_id), starts)


@given(LENGTHS, RATES_HZ, SEGMENTS, st.integers(0, 3))
def test_stretches_lie_in_the_resampled_recording(n_frames, rate_hz, segments, draws):
    front_end = FrontEnd(sampling="spread", segments=segments)
    n_samples = resampled_length(n_frames, rate_hz)
    stretches = front_end.stretches(n_frames, rate_hz, draws=draws, track_id="a")
    assert len(stretches.places) == len(spread_starts(n_samples, segments)) * max(1, draws)
    for start, length in stretches.places:
        assert start >= 0 and length == min(n_samples, SEGMENT_SAMPLES) and start + length <= n_samples


@settings(max_examples=150)
@given(RATES_HZ, st.floats(0.1, 20), st.integers(1, 10), st.integers(0, 2))
@example(rate_hz=11_127, seconds=17, segments=3, draws=0)
@example(rate_hz=191_999, seconds=10, segments=2, draws=0)
@example(rate_hz=8_000, seconds=90, segments=6, draws=0)
@example(rate_hz=16_000, seconds=0.1, segments=1, draws=0)
def test_spread_segments_equal_those_of_the_whole_resampled_recording(rate_hz, seconds, segments, draws):
    samples = noise(seconds, rate_hz)
    stretches = FrontEnd(sampling="spread", segments=segments).stretches(len(samples), rate_hz, draws=draws)
    recording, whole = read_stretches(ArraySound(samples, rate_hz), stretches), resample(samples, rate_hz)
    assert len(whole) == resampled_length(len(samples), rate_hz)
    assert recording.duration_s == len(samples) / rate_hz and recording.lost_s == 0
    for (start, length), excerpt in zip(stretches.places, recording.excerpts, strict=True):
        assert excerpt.samples.shape == (length,) and excerpt.start_s == start / SAMPLE_RATE_HZ
        np.testing.assert_allclose(excerpt.samples, whole[start : start + length], atol=1e-4, rtol=0)


@settings(max_examples=20)
@given(RATES_HZ, st.floats(0.1, 15), st.sampled_from(["spread", "paper"]), st.integers(1, 6))
def test_each_planned_segment_has_a_finite_mel(rate_hz, seconds, sampling, segments):
    samples = noise(seconds, rate_hz)
    number = {"segments": segments} if sampling == "spread" else {"segments_per_excerpt": segments}
    front_end = FrontEnd(sampling=sampling, **number)
    recording = read_stretches(ArraySound(samples, rate_hz), front_end.stretches(len(samples), rate_hz))
    found = log_mel_segments(recording, front_end)
    n_samples = resampled_length(len(samples), rate_hz)
    starts = spread_starts(n_samples, segments) if sampling == "spread" else segment_starts(n_samples, segments)
    np.testing.assert_array_equal(found.start_s, starts / SAMPLE_RATE_HZ)
    assert found.mel_STF.shape == (len(starts), 187, 96) and np.isfinite(found.mel_STF).all()


STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 100)),
    st.tuples(st.just("seek"), st.integers(-100, 100), st.integers(0, 2)),
    st.tuples(st.just("read_at"), st.integers(0, 100), st.integers(0, 100)),
    st.tuples(st.just("find_all"), st.binary(min_size=1, max_size=2), st.integers(0, 100)),
)


@given(
    st.binary(min_size=10, max_size=80),
    st.tuples(st.integers(0, 80), st.integers(0, 80)),
    st.dictionaries(st.integers(0, 80), st.binary(min_size=1, max_size=6), max_size=3),
    st.lists(STEPS, max_size=12),
)
def test_a_byte_view_is_as_a_file_of_the_patched_bytes(data, ends, patches, steps):
    start, end = (min(at, len(data)) for at in sorted(ends))
    expected = bytearray(data[start:end])
    for offset, patch in patches.items():
        for i, byte in enumerate(patch):
            if offset + i < len(expected):
                expected[offset + i] = byte
    expected, view = bytes(expected), ByteView(io.BytesIO(data), start, end, patches)
    file = io.BytesIO(expected)
    assert len(view) == len(expected)
    for name, *arguments in steps:
        if name == "seek":
            offset, whence = arguments
            at = max(0, offset + (0, file.tell(), len(expected))[whence])
            assert view.seek(offset, whence) == file.seek(at)
        elif name == "read":
            assert view.read(*arguments) == file.read(*arguments)
        elif name == "read_at":
            assert view.read_at(*arguments) == expected[arguments[0] :][: arguments[1]]
        else:
            needle, first = arguments
            found = [match.start() for match in re.finditer(b"(?=" + re.escape(needle) + b")", expected)]
            assert view.find_all(needle, first) == [at for at in found if at >= first]
        assert view.tell() == file.tell()
    assert view.read_at(0, 100) == expected and view.read() == file.read()


@settings(max_examples=25)
@given(st.lists(st.integers(-12, 12), max_size=4), st.integers(0, 2))
def test_a_byte_view_finds_what_lies_across_its_blocks(offsets, start):
    data = bytearray((2 << 20) + 20)
    for offset in offsets:
        for block in (1 << 20, 2 << 20):
            data[block + offset : block + offset + 4] = b"OggS"
    view = ByteView(io.BytesIO(data), start)
    assert view.find_all(b"OggS") == [m.start() - start for m in re.finditer(b"OggS", data)]


WAV = b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0\x88\x58\x01\0\x02\0\x10\0"
FLAC = b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\x10\0\x20\0\x0a\xc4\x42\xf0\0\x01\xe0\0" + bytes(16)
FLAC_FRAMES = [b"\xff\xf8\xc9\x18\x00\xc2", b"\xff\xf8\xc9\x18\xc2\x80\x0e", b"\xff\xf8\x79\x18\x05\x03\xff\x0a"]
PIECES = {  # of files, whole and damaged
    "wav": [
        WAV,
        WAV[:12],
        WAV + b"data\x08\0\0\0" + bytes(8),
        b"data\0\x08\0\0",
        b"data\xff\xff\xff\xff",
        b"data\0\0\0\0",
    ],
    "wav, 64 bits": [b"ds64\x1c\0\0\0", b"RF64", b"LIST\4\0\0\0abcd"],
    "flac": [
        FLAC,
        FLAC[:8],
        FLAC + FLAC_FRAMES[0] + bytes(16),
        *FLAC_FRAMES,
        b"\xff\xf9\x69\x08\xfe\x82\x80\x80\x80\x80\x80",
    ],
    "ogg": [b"OggS\0\2" + bytes(20) + b"\1\x1e", b"OggS\0\0" + bytes(20) + b"\xff" * 256, b"OggS"],
    "tags": [b"ID3\4\0\0\0\0\0\x0a", b"ID3\4\0\0\x7f\x7f\x7f\x7f", b"TAG"],
    "mp3": [b"\xff\xfb\x90\x64" + bytes(413), b"Xing\0\0\0\1", b"Info\0\0\0\x0f"],
    "others": [b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"FORM\0\0\0\0AIFF"],
    "numbers": [b"\0\0\0\0", b"\xff\xff\xff\xff", bytes(700)],
}
SNIPPETS = [piece for pieces in PIECES.values() for piece in pieces]
MADE_BYTES = st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=40), max_size=12).map(b"".join)


def bytes_of(part: Part) -> bytes:
    part.view.seek(0)
    return part.view.read()


@settings(max_examples=600)
@given(MADE_BYTES | st.binary(max_size=200))
@example(data=(WAV + b"data\x08\0\0\0" + bytes(8)) * 3)
@example(data=(FLAC + FLAC_FRAMES[0] + bytes(16)) * 2)
def test_the_parts_of_any_bytes_are_pieces_of_them(data):
    parts = find_parts(ByteView(io.BytesIO(data)))
    assert parts
    pieces = [bytes_of(part) for part in parts]
    n_bytes = sum(len(piece) for piece in pieces)
    # nothing is left out but tags before the first part, and nothing is twice
    assert n_bytes == len(data) or (data.startswith((b"ID3", b"APETAGEX")) and n_bytes < len(data))
    for part, piece in zip(parts, pieces, strict=True):
        assert len(part.view) == len(piece)
    for part in find_sound(ByteView(io.BytesIO(data))):
        assert len(bytes_of(part)) <= len(data)
    assert isinstance(has_signature(data), bool) and tag_bytes(ByteView(io.BytesIO(data))) >= 0


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)])
@given(MADE_BYTES, st.integers(0, 2**31))
def test_a_frame_count_is_raised_and_nothing_else_changes(tag, data, n_frames):
    data = tag + data
    part = Part(view=ByteView(io.BytesIO(data)))
    changed = with_frame_count(part, n_frames)
    if changed is not None:
        after = bytes_of(changed)
        different = [i for i, (old, new) in enumerate(zip(data, after, strict=True)) if old != new]
        first = after.index(n_frames.to_bytes(4))
        assert n_frames > 0 and different and different[-1] - different[0] < 4 and first <= different[0]
