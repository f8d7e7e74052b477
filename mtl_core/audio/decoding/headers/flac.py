"""Flac: the files in a file that was joined, and the number of samples of each, by its frames and not by its header.

A frame is known by its header of 6 to 16 bytes, which ends with a checksum and holds the number of the frame. The
format is RFC 9639.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

from mtl_core.audio.decoding.byte_view import ByteView

PADDING, SEEK_TABLE = 1, 3  # types of blocks of metadata
SEEK_POINT = struct.Struct(">QQH")  # its sample, its byte behind the first frame, samples of its frame

_BEGINS = b"fLaC\x00\x00\x00\x22"  # with more than one block of metadata, as all encoders write it
_TAIL_BYTES = 1 << 17  # longer than any frame but those of 8 channels at 32 bits
_WINDOW_BYTES = 1 << 16  # that are looked at around each quarter of a file
_MOST_SAMPLES = 65_535  # of a frame
#: A file holds as many samples as its frames at the quarters let expect. Two joined files hold twice as many as the
#: last frame tells.
_JOINED_RATIO = 1.4
_MOST_BLOCKS = 1_000  # of metadata: a damaged file can seem to hold millions
_HEADER = re.compile(rb"\xff[\xf8\xf9][\x10-\xff][\x00-\xaf]")
_BLOCKS = {1: 192} | {code: 576 << (code - 2) for code in range(2, 6)}  # code -> samples of a frame
_BLOCKS |= {code: 256 << (code - 8) for code in range(8, 16)}
#: A point that stands for none, as the format allows. A seek table of `seek_table` begins with it.
_OUR_TABLE = SEEK_POINT.pack(0xFFFF_FFFF_FFFF_FFFF, int.from_bytes(b"mtl_core"), 0)


class Metadata(NamedTuple):
    """A block of metadata."""

    kind: int
    at: int  # the first byte behind its header
    n_bytes: int
    is_last: bool


class _Readable(Protocol):
    def read_at(self, offset: int, size: int) -> bytes: ...


def metadata_blocks(file: _Readable) -> Iterator[Metadata]:
    """The blocks of metadata of a file that begins with `fLaC`. The last one may lie behind the file's end."""
    at = 4
    for _ in range(_MOST_BLOCKS):
        header = file.read_at(at, 4)
        if len(header) < 4:
            return
        block = Metadata(header[0] & 0x7F, at + 4, int.from_bytes(header[1:]), header[0] >= 0x80)
        yield block
        if block.is_last:
            return
        at = block.at + block.n_bytes


def seek_table(points: Iterable[tuple[int, int]], n_bytes: int) -> bytes:
    """The `n_bytes` of a seek table with these points: the sample and the byte of frames, the first frame's byte is 0.

    Raises:
        ValueError: there is no room for so many.
    """
    table = _OUR_TABLE + b"".join(SEEK_POINT.pack(sample, byte, 0) for sample, byte in sorted(points))
    n_free, rest = divmod(n_bytes - len(table), SEEK_POINT.size)
    if n_free < 0:
        raise ValueError(f"{n_bytes} bytes are too few for {len(table) // SEEK_POINT.size} points")
    return table + SEEK_POINT.pack(0xFFFF_FFFF_FFFF_FFFF, 0, 0) * n_free + bytes(rest)


def has_exact_seek_table(view: ByteView) -> bool:
    """Whether a seek table of a file is one that `seek_table` has made. Others may be wrong."""
    blocks = metadata_blocks(view)
    return any(kind == SEEK_TABLE and view.read_at(at, len(_OUR_TABLE)) == _OUR_TABLE for kind, at, _, _ in blocks)


def flac_files(view: ByteView) -> list[ByteView]:
    """The Flac files that were joined, each with the number of samples by its last frame in its STREAMINFO."""
    end = _last_sample(view)
    starts = [0]
    if end is not None and not _is_as_claimed(view, end):
        starts = [at for at in view.find_all(_BEGINS) if at == 0 or _claim(view.part(at))] or [0]
    parts = []
    for start, stop in zip(starts, [*starts[1:], len(view)], strict=True):
        part = view.part(start, stop)
        n_samples = end if len(starts) == 1 else _last_sample(part)
        if n_samples is not None and n_samples != _claim(part):
            packed = int.from_bytes(part.read_at(21, 5)) & ~0xF_FFFF_FFFF | n_samples
            part = view.part(start, stop, {21: packed.to_bytes(5)})
        parts.append(part)
    return parts


def is_as_claimed(view: ByteView) -> bool:
    """Whether this is one Flac file with as many samples as its header claims. Reads its start, quarters and end."""
    end = _last_sample(view)
    return end is not None and _is_as_claimed(view, end)


class Frame(NamedTuple):
    """The header of a frame."""

    at: int  # its first byte
    first: int  # its first sample
    n_samples: int


def frame_headers(data: bytes, block: int = 0, most: int | None = None) -> list[Frame]:
    """What looks like the headers of frames in these bytes, in order, at most `most`. By chance one of some
    20,000,000 places does.

    `block` is the number of samples of each frame in a file whose frames have one size. 0: unknown, then the samples
    are those of a recording whose frames are all as long as this one.
    """
    frames: list[Frame] = []
    for match in _HEADER.finditer(data):
        header = data[match.start() : match.start() + 16]
        number, size = _utf8_number(header[4:])
        code, rate_code = header[2] >> 4, header[2] & 15
        at = 4 + size
        if size == 0 or code == 0:
            continue
        n_samples = _BLOCKS.get(code, 0)
        if code in (6, 7):
            n_samples, at = int.from_bytes(header[at : at + code - 5]) + 1, at + code - 5
        at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
        if at < len(header) and _crc8(header[:at]) == header[at]:
            first = number if header[1] & 1 else number * (block or n_samples)
            frames.append(Frame(match.start(), first, n_samples))
            if len(frames) == most:
                break
    return frames


def flac_frames(data: bytes, block: int = 0) -> list[tuple[int, int]]:
    """The same as the offset of each, and the sample behind it."""
    return [(at, first + n_samples) for at, first, n_samples in frame_headers(data, block)]


def are_in_order(frames: list[tuple[int, int]]) -> bool:
    """Whether these are frames of one recording: three or more, each a frame of equal length behind the one before."""
    steps = {position - before for (_, before), (_, position) in pairwise(frames)}
    return len(frames) >= 3 and len(steps) == 1 and 0 < steps.pop() <= _MOST_SAMPLES


def _is_as_claimed(view: ByteView, end: int) -> bool:
    return end == _claim(view) and not _may_be_joined(view, end)


def _claim(view: ByteView) -> int:
    """The number of samples that STREAMINFO claims; 0: unknown."""
    return int.from_bytes(view.read_at(21, 5)) & 0xF_FFFF_FFFF


def _block(view: ByteView) -> int:
    """The samples of each frame, by STREAMINFO; the largest where they vary."""
    return int.from_bytes(view.read_at(10, 2))


def _last_sample(view: ByteView) -> int | None:
    """The sample at which the last frame ends; None where no frame is found in the last bytes."""
    frames = flac_frames(view.read_at(max(0, len(view) - _TAIL_BYTES), _TAIL_BYTES), _block(view))
    return frames[-1][1] if frames else None


def _may_be_joined(view: ByteView, end: int) -> bool:
    """Whether frames at the quarters do not ascend to the sample `end`, or hold few bytes beside it.

    Files of one length that were joined can ascend: of 5 files each quarter lies a quarter further in its own file.
    """
    positions, n_samples, n_bytes = [], 0, 0
    for quarter in (1, 2, 3):
        frames = flac_frames(view.read_at(len(view) * quarter // 4, _WINDOW_BYTES), _block(view))
        positions += [position for _, position in frames[:1]]
        for (offset, position), (next_offset, next_position) in pairwise(frames):
            if 0 < next_position - position <= _MOST_SAMPLES:  # else it is a join, or no frame
                n_samples += next_position - position
                n_bytes += next_offset - offset
    if positions != sorted(positions) or any(position >= end for position in positions):
        return True
    return n_bytes == 0 or n_samples * len(view) > _JOINED_RATIO * end * n_bytes


def _utf8_number(data: bytes) -> tuple[int, int]:
    """The number at the start of these bytes, coded as UTF-8 extended to 36 bits, and its size; (0, 0) if damaged."""
    if not data or data[0] < 0x80:
        return (data[0], 1) if data else (0, 0)
    size = 8 - (data[0] ^ 0xFF).bit_length()
    if not 2 <= size <= 7 or len(data) < size or any(byte & 0xC0 != 0x80 for byte in data[1:size]):
        return 0, 0
    number = data[0] & (0x7F >> size)
    for byte in data[1:size]:
        number = number << 6 | byte & 0x3F
    return number, size


def _crc8_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1 ^ 0x07 if byte & 0x80 else byte << 1) & 0xFF
    return byte


_CRC8 = [_crc8_of(byte) for byte in range(256)]


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc
