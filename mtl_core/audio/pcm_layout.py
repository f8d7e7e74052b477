"""PCM layout: where the samples of an uncompressed WAV or AIFF file lie, by its header."""

import math
import struct
from dataclasses import dataclass

from mtl_core.audio.decoding.reach import grid_frames, margin_frames
from mtl_core.audio.ranged_file import BLOCK_BYTES, HEAD_BYTES, MOST_BYTES, TAIL_BYTES, RangedFile, Spans

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_AIFC_PCM = (b"none", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"fl64")


@dataclass(frozen=True, kw_only=True)
class PcmLayout:
    """Where the samples of an uncompressed file lie."""

    first_byte: int
    frame_bytes: int
    rate_hz: int
    n_frames: int

    def cost(self, spans: Spans) -> tuple[int, int]:
        """As `Layout.cost`."""
        n_bytes = sum(end - first for first, end in map(self._byte_range, spans))
        return len(spans) + 2, n_bytes + len(spans) * BLOCK_BYTES + HEAD_BYTES + TAIL_BYTES + BLOCK_BYTES

    def fetch(self, file: RangedFile, spans: Spans) -> bool:
        """As `Layout.fetch`."""
        ranges = [*map(self._byte_range, spans), (file.size - TAIL_BYTES, file.size)]
        if file.held_bytes + sum(end - first for first, end in ranges) > MOST_BYTES:
            file.drop()  # spans that were decoded
        file.expect(ranges)
        return True

    def _byte_range(self, span: tuple[float, float]) -> tuple[int, int]:
        """The bytes (first, end) that decoding a stretch reads: its margins, and the rest of the last block."""
        margin = margin_frames(self.rate_hz)
        first = max(0, round(span[0] * self.rate_hz) - margin - grid_frames(self.rate_hz))
        end = max(0, round(span[1] * self.rate_hz) + margin + grid_frames(self.rate_hz))
        end_of_sound = self.n_frames * self.frame_bytes
        first_byte, end_byte = min(first * self.frame_bytes, end_of_sound), end * self.frame_bytes + BLOCK_BYTES
        return self.first_byte + first_byte, self.first_byte + min(end_byte, end_of_sound)


def pcm_layout(file: RangedFile) -> PcmLayout | None:
    """The layout of an uncompressed WAV (RIFF, RF64, BW64) or AIFF file; None: its first bytes tell none."""
    head, size = file.read_at(0, HEAD_BYTES), file.size
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
            rate_hz = round(math.ldexp(mantissa, exponent - 16383 - 63)) if exponent < 16383 + 32 else 0
            sound_format = (rate_hz, n_channels * -(-bits // 8)) if is_pcm else None
        if name in (b"data", b"SSND"):
            if sound_format is None or 0 in sound_format:
                return None
            rate_hz, frame_bytes = sound_format
            offset = 0 if is_wav else 8  # of the first sample, behind two numbers of 4 bytes
            n_frames = min((n_bytes or size) - offset, size - at - offset) // frame_bytes
            if n_frames < 1:
                return None
            return PcmLayout(first_byte=at + offset, frame_bytes=frame_bytes, rate_hz=rate_hz, n_frames=n_frames)
        at += n_bytes + n_bytes % 2
    return None
