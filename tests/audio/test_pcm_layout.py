"""The header of an uncompressed file tells where its samples lie, and so what must be fetched of it."""

import numpy as np
import pytest
from builders.sound_files import RATE_HZ, encoded

from mtl_core.audio.decoding.reach import grid_frames, margin_frames
from mtl_core.audio.pcm_layout import PcmLayout, pcm_layout
from mtl_core.audio.ranged_file import BLOCK_BYTES, HEAD_BYTES, TAIL_BYTES, RangedFile


def ranged(data: bytes, requests: list[tuple[int, int]] | None = None) -> RangedFile:
    def fetch(first: int, n_bytes: int) -> bytes:
        if requests is not None:
            requests.append((first, n_bytes))
        return data[first : first + n_bytes]

    return RangedFile(fetch, len(data), data[:HEAD_BYTES])


def layout_of(data: bytes) -> PcmLayout | None:
    return pcm_layout(ranged(data))


def test_what_a_span_needs_is_fetched_and_the_end() -> None:
    data = encoded(np.zeros((60 * RATE_HZ, 2), np.float32), "WAV", "PCM_16")
    requests: list[tuple[int, int]] = []
    file = ranged(data, requests)
    layout = pcm_layout(file)
    assert layout is not None and layout.fetch(file, [(20.0, 23.0)])
    (first, n_bytes), (tail, _) = sorted(requests)
    start, end = (44 + round(at_s * RATE_HZ) * 4 for at_s in (20, 23))
    margin = 4 * (margin_frames(RATE_HZ) + grid_frames(RATE_HZ))
    assert start - margin - BLOCK_BYTES < first <= start - margin
    assert end + margin + BLOCK_BYTES <= first + n_bytes < end + margin + 2 * BLOCK_BYTES
    assert len(data) - TAIL_BYTES - BLOCK_BYTES < tail <= len(data) - TAIL_BYTES
    n_requests, cost_bytes = layout.cost([(20.0, 23.0)])
    assert n_requests == 1 + len(requests) and cost_bytes == pytest.approx(file.held_bytes, abs=2 * BLOCK_BYTES)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [*(("WAV", name) for name in ("PCM_16", "PCM_24", "FLOAT", "PCM_U8")),
     *(("AIFF", name) for name in ("PCM_16", "PCM_24", "FLOAT", "PCM_S8"))],
)  # fmt: skip
def test_the_layout_of_an_uncompressed_file(container, subtype):
    samples = np.zeros((RATE_HZ, 2), np.float32)
    data = encoded(samples, container, subtype)
    layout = layout_of(data)
    assert layout is not None and (layout.rate_hz, layout.n_frames) == (RATE_HZ, RATE_HZ)
    assert layout.first_byte + RATE_HZ * layout.frame_bytes <= len(data)


def test_a_head_that_does_not_tell_the_layout_has_none():
    samples = np.zeros((RATE_HZ, 1), np.float32)
    assert layout_of(encoded(samples, "WAV", "IMA_ADPCM")) is None
    assert layout_of(encoded(samples, "AIFF", "IMA_ADPCM")) is None
    assert layout_of(encoded(samples, "FLAC", "PCM_16")) is None
    good = encoded(samples, "WAV", "PCM_16")
    assert layout_of(good[:30]) is None
    assert layout_of(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes(16) + b"data\xff\0\0\0") is None
    unfinished = good.replace(b"data" + (2 * RATE_HZ).to_bytes(4, "little"), b"data" + bytes(4))
    assert layout_of(unfinished).n_frames == RATE_HZ
