"""Byte view: a part of a seekable file as a file of its own, with some of its bytes replaced."""

import io
from collections.abc import Mapping
from typing import BinaryIO


class ByteView:
    """The bytes `start` to `end` (default: the file's end) of a file, as a file for a demuxer.

    Each view has a position of its own, and moves that of `file` when it reads: views of one file can be read by turns.

    Args:
        file: seekable; it is not closed.
        start, end: first byte, and the byte behind the last.
        patches: offset in the view -> the bytes that stand there instead.
    """

    def __init__(
        self,
        file: "BinaryIO | io.BufferedIOBase | ByteView",
        start: int = 0,
        end: int | None = None,
        patches: Mapping[int, bytes] | None = None,
    ) -> None:
        self._file, self._start, self._patches = file, start, dict(patches or {})
        self._end = file.seek(0, io.SEEK_END) if end is None else end
        self._position = 0

    def __len__(self) -> int:
        return max(0, self._end - self._start)

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end; all that are left where `size` is negative."""
        data = self.read_at(self._position, self._end if size < 0 else size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset`, and return it."""
        if whence != io.SEEK_SET:
            offset += self._position if whence == io.SEEK_CUR else len(self)
        self._position = max(0, offset)
        return self._position

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end. The position stays: ffmpeg does not know of this read."""
        begin = self._start + offset
        if begin + size > self._end:
            size = self._end - begin
        if size <= 0:
            return b""
        self._file.seek(begin)
        data = self._file.read(size)
        if not self._patches:
            return data
        for at, patch in self._patches.items():
            if offset < at + len(patch) and at < offset + len(data):
                first, last = max(at, offset), min(at + len(patch), offset + len(data))
                data = data[: first - offset] + patch[first - at : last - at] + data[last - offset :]
        return data

    def part(self, start: int, end: int | None = None, patches: Mapping[int, bytes] | None = None) -> "ByteView":
        """A view of the bytes `start` to `end` (default: the end) of this one."""
        end = len(self) if end is None else end
        if self._patches:
            return ByteView(self, start, end, patches)
        return ByteView(self._file, self._start + start, self._start + end, patches)

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
