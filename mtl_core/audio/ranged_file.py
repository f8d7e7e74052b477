"""Ranged file: a large file in an object store, of which only some ranges are read.

Uncompressed sound can be read anywhere without what lies before it, so a few segments of a long recording are a tenth
of its bytes. Ranges that will be needed are fetched together; what nobody foresaw is fetched when it is read.
"""

import io
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

BLOCK_BYTES = 128 * 1024  # as much as the decoder reads at once
HEAD_BYTES = BLOCK_BYTES
TAIL_BYTES = 2 * BLOCK_BYTES  # the decoder looks where the sound ends
MARGIN_S = 0.1  # of sound that resampling takes beside a segment, and more
_REQUESTS = 8  # at once
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_AIFC_PCM = (b"none", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"fl64")

#: (first byte, bytes) -> the bytes
Fetch = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True)
class PcmLayout:
    """Where the samples of an uncompressed file lie."""

    first_byte: int
    frame_bytes: int
    rate_hz: int
    n_frames: int

    def byte_range(self, start_s: float, end_s: float) -> tuple[int, int]:
        """The bytes (first, end) that decoding a stretch reads: its margins, and the rest of the last block."""
        first, end = (max(0, round(at_s * self.rate_hz)) for at_s in (start_s - MARGIN_S, end_s + MARGIN_S))
        end_of_sound = self.n_frames * self.frame_bytes
        first_byte, end_byte = min(first * self.frame_bytes, end_of_sound), end * self.frame_bytes + BLOCK_BYTES
        return self.first_byte + first_byte, self.first_byte + min(end_byte, end_of_sound)


def pcm_layout(head: bytes, size: int) -> PcmLayout | None:
    """The layout of an uncompressed WAV (RIFF, RF64, BW64) or AIFF file of `size` bytes; None: its head tells none.

    Only plans what is fetched at first. The decoder finds by itself where the sound is.
    """
    is_wav = head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"
    if not is_wav and not (head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")):
        return None
    at, sound_format = 12, None
    while at + 8 <= len(head):
        name, n_bytes = struct.unpack_from("<4sI" if is_wav else ">4sI", head, at)
        at += 8
        if name == b"fmt " and n_bytes >= 16 and at + 16 <= len(head):
            kind, _, rate_hz, _, frame_bytes, _ = struct.unpack_from("<HHIIHH", head, at)
            sound_format = (rate_hz, frame_bytes) if kind in (_PCM, _FLOAT, _EXTENSIBLE) else None
        if name == b"COMM" and n_bytes >= 18 and at + 22 <= len(head):
            n_channels, _, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", head, at)
            is_pcm = n_bytes < 22 or head[at + 18 : at + 22].lower() in _AIFC_PCM
            rate_hz = round(mantissa * 2.0 ** (exponent - 16383 - 63))
            sound_format = (rate_hz, n_channels * -(-bits // 8)) if is_pcm else None
        if name in (b"data", b"SSND"):
            if sound_format is None or 0 in sound_format:
                return None
            rate_hz, frame_bytes = sound_format
            offset = 0 if is_wav else 8  # of the first sample, behind two numbers of 4 bytes
            n_frames = min((n_bytes or size) - offset, size - at - offset) // frame_bytes
            return PcmLayout(first_byte=at + offset, frame_bytes=frame_bytes, rate_hz=rate_hz, n_frames=n_frames)
        at += n_bytes + n_bytes % 2
    return None


class RangedFile(io.BufferedIOBase):
    """A seekable file of `size` bytes that keeps the blocks it has fetched.

    Args:
        fetch: gets a range; it is called from several threads. What it raises is raised by `read` and `expect`.
        head: the first bytes of the file, a whole number of blocks or all of it.
    """

    def __init__(self, fetch: Fetch, size: int, head: bytes) -> None:
        super().__init__()
        self.size, self.layout = size, pcm_layout(head, size)
        self._fetch, self._at = fetch, 0
        self._blocks = {i: head[i * BLOCK_BYTES :][:BLOCK_BYTES] for i in range(-(-len(head) // BLOCK_BYTES))}

    @property
    def held_bytes(self) -> int:
        """The bytes that were fetched so far."""
        return sum(map(len, self._blocks.values()))

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch all ranges (first byte, end) that are not there yet, several at once."""
        missing = sorted({block for first, end in ranges for block in self._span(first, end)} - self._blocks.keys())
        runs: list[list[int]] = []
        for block in missing:
            if runs and block == runs[-1][-1] + 1:
                runs[-1].append(block)
            else:
                runs.append([block])
        if len(runs) == 1:
            self._get(runs[0])
        elif runs:
            with ThreadPoolExecutor(min(_REQUESTS, len(runs))) as pool:
                list(pool.map(self._get, runs))

    def read(self, size: int | None = -1) -> bytes:
        end = self.size if size is None or size < 0 else min(self.size, self._at + size)
        if end <= self._at:
            return b""
        self.expect([(self._at, end)])
        span = self._span(self._at, end)
        start = self._at - span.start * BLOCK_BYTES
        data = b"".join(self._blocks[block] for block in span)[start : start + end - self._at]
        self._at = end
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def _span(self, first: int, end: int) -> range:
        return range(max(0, first) // BLOCK_BYTES, -(-min(end, self.size) // BLOCK_BYTES))

    def _get(self, run: Sequence[int]) -> None:
        first = run[0] * BLOCK_BYTES
        n_bytes = min(self.size, (run[-1] + 1) * BLOCK_BYTES) - first
        data = self._fetch(first, n_bytes)
        if len(data) != n_bytes:
            raise OSError(f"{len(data)} of {n_bytes} bytes came")
        for i, block in enumerate(run):
            self._blocks[block] = data[i * BLOCK_BYTES :][:BLOCK_BYTES]
