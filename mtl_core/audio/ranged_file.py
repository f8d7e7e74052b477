"""Ranged file: a large file in an object store, of which only some ranges are read.

Uncompressed sound and Flac can be read anywhere without what lies before it, so a few segments of a long recording are
a tenth of its bytes. Ranges that will be needed are fetched together and kept. What nobody expected is fetched when it
is read.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Protocol

BLOCK_BYTES = 128 * 1024  # as much as the decoder reads at once
HEAD_BYTES = BLOCK_BYTES
TAIL_BYTES = 2 * BLOCK_BYTES  # the decoder looks where the sound ends
MOST_BYTES = 64 * 2**20  # that are kept of a file
_MOST_AHEAD = 64  # blocks: 8 MiB
_REQUESTS = 8  # at once

#: (first byte, bytes) -> the bytes
Fetch = Callable[[int, int], bytes]
#: () -> all of the file
Whole = Callable[[], bytes | BinaryIO]
#: Where stretches of a recording start and end, in seconds.
Spans = Sequence[tuple[float, float]]


class Layout(Protocol):
    """Where the sound lies in the file. It only plans what is fetched; the decoder finds the sound by itself."""

    @property
    def rate_hz(self) -> int:
        """Of the recording."""
        ...

    @property
    def n_frames(self) -> int:
        """Of the recording, as its header says."""
        ...

    def cost(self, spans: Spans) -> tuple[int, int]:
        """About how many requests and bytes the first `fetch` takes."""
        ...

    def fetch(self, file: "RangedFile", spans: Spans) -> bool:
        """Fetch what decoding these spans reads. Returns False where all of the file is needed for it."""
        ...


class RangedFile(io.BufferedIOBase):
    """A seekable file of `size` bytes, of which ranges are fetched.

    Ranges that were expected are kept. Of the others only the last one is kept. As long as they follow one another,
    each is twice as long as the one before.

    Args:
        fetch: gets a range; it is called from several threads. What it raises is raised by `read` and `expect`.
        head: the first bytes of the file, a whole number of blocks or all of it.
        whole: opens all of the file instead.
    """

    def __init__(self, fetch: Fetch, size: int, head: bytes, whole: Whole | None = None) -> None:
        super().__init__()
        self.size, self.whole = size, whole
        self.layout: Layout | None = None  # None: unknown
        self.fetched_bytes = len(head)
        self._fetch, self._at = fetch, 0
        self._blocks = {i: head[i * BLOCK_BYTES :][:BLOCK_BYTES] for i in range(-(-len(head) // BLOCK_BYTES))}
        self._last: dict[int, bytes] = {}  # blocks that nobody expected

    @property
    def held_bytes(self) -> int:
        """The bytes that are kept."""
        return sum(map(len, self._blocks.values()))

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch all ranges (first byte, end) that are not there yet, several at once, and keep them."""
        missing = sorted({block for first, end in ranges for block in self._span(first, end)} - self._blocks.keys())
        runs: list[list[int]] = []
        for block in missing:
            if runs and block == runs[-1][-1] + 1:
                runs[-1].append(block)
            else:
                runs.append([block])
        if len(runs) == 1:
            self._blocks |= self._counted(self._get(runs[0]))
        elif runs:
            with ThreadPoolExecutor(min(_REQUESTS, len(runs))) as pool:
                for blocks in pool.map(self._get, runs):
                    self._blocks |= self._counted(blocks)

    def drop(self) -> None:
        """Keep only the start."""
        self._blocks = {0: self._blocks[0]}

    def holds(self, first: int, end: int) -> bool:
        """Whether a range is kept."""
        return all(block in self._blocks for block in self._span(first, end))

    def replace(self, first: int, data: bytes) -> None:
        """Put other bytes into the file. The range must be kept."""
        for block in self._span(first, first + len(data)):
            start = max(0, first - block * BLOCK_BYTES)
            part = data[max(0, block * BLOCK_BYTES - first) :][: BLOCK_BYTES - start]
            old = self._blocks[block]
            self._blocks[block] = old[:start] + part + old[start + len(part) :]

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end; the position stays."""
        end = min(self.size, offset + size)
        if end <= offset:
            return b""
        start = offset - offset // BLOCK_BYTES * BLOCK_BYTES
        return b"".join(map(self._block, self._span(offset, end)))[start : start + end - offset]

    def read(self, size: int | None = -1) -> bytes:
        data = self.read_at(self._at, self.size if size is None or size < 0 else size)
        self._at += len(data)
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

    def _block(self, number: int) -> bytes:
        """A block that is kept, or of the last ones; else it is fetched with those behind it."""
        if number in self._blocks:
            return self._blocks[number]
        if number not in self._last:
            follows = number - 1 in self._last
            n_blocks = min(2 * len(self._last), _MOST_AHEAD) if follows else 1
            n_blocks = min(n_blocks, self._span(0, self.size).stop - number)
            self._last = self._counted(self._get(range(number, number + n_blocks)))
        return self._last[number]

    def _counted(self, blocks: dict[int, bytes]) -> dict[int, bytes]:
        """The same blocks. It counts their bytes in the thread that asked, because `_get` runs in several."""
        self.fetched_bytes += sum(map(len, blocks.values()))
        return blocks

    def _get(self, run: Sequence[int]) -> dict[int, bytes]:
        first = run[0] * BLOCK_BYTES
        n_bytes = min(self.size, (run[-1] + 1) * BLOCK_BYTES) - first
        data = self._fetch(first, n_bytes)
        if len(data) != n_bytes:
            raise OSError(f"{len(data)} of {n_bytes} bytes came")
        return {block: data[i * BLOCK_BYTES :][:BLOCK_BYTES] for i, block in enumerate(run)}
