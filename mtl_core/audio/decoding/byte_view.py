"""Byte view: a part of a seekable file as a file of its own, with some of its bytes replaced."""

import io
from collections.abc import Mapping
from typing import BinaryIO


class ByteView:
    """The bytes `start` to `end` (default: the file's end) of a file, as a file for a demuxer.

    Reading and seeking move the position of `file`, so two views of one file cannot be read by turns.

    Args:
        file: seekable; it is not closed.
        start, end: first byte, and the byte behind the last.
        patches: offset in the view -> the bytes that stand there instead.
    """

    def __init__(
        self, file: BinaryIO, start: int = 0, end: int | None = None, patches: Mapping[int, bytes] | None = None
    ) -> None:
        self._file, self._start, self._patches = file, start, dict(patches or {})
        self._end = file.seek(0, io.SEEK_END) if end is None else end
        self.seek(0)

    def __len__(self) -> int:
        return max(0, self._end - self._start)

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end; all that are left where `size` is negative."""
        begin, left = self.tell(), max(0, self._end - self._file.tell())
        data = self._file.read(left if size < 0 else min(size, left))
        for offset, patch in self._patches.items():
            if begin < offset + len(patch) and offset < begin + len(data):
                first, last = max(offset, begin), min(offset + len(patch), begin + len(data))
                data = data[: first - begin] + patch[first - offset : last - offset] + data[last - begin :]
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset`, and return it."""
        base = (0, self.tell() if whence == io.SEEK_CUR else 0, len(self))[whence]
        self._file.seek(self._start + max(0, base + offset))
        return self.tell()

    def tell(self) -> int:
        """The position of the next read."""
        return self._file.tell() - self._start

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end. The position stays: ffmpeg does not know of this read."""
        here = self.tell()
        self.seek(offset)
        data = self.read(size)
        self.seek(here)
        return data

    def find_all(self, needle: bytes, start: int = 0) -> list[int]:
        """The offsets of `needle` from `start` on. It holds 1 MiB of the file at a time."""
        found, overlap, block = [], len(needle) - 1, 1 << 20
        while (data := self.read_at(start, block + overlap)) and len(data) >= len(needle):
            at = data.find(needle)
            while at >= 0:
                found.append(start + at)
                at = data.find(needle, at + 1)
            start += block
        return found
