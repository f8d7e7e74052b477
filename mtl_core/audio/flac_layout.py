"""Flac layout: where the frames of some spans lie in a Flac file of which only ranges are read.

A frame says which sample it begins with, but no header says where a frame lies. So a position is guessed between the
frames that are known, the bytes around it are fetched, and the frames in them are known, too. Then the file gets a
seek table with the frames before and behind each span, in place of its own or of padding: the decoder goes there
at once. Without such a table ffmpeg searches by reading here and there, one request after another.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.headers import flac
from mtl_core.audio.ranged_file import BLOCK_BYTES, HEAD_BYTES, MARGIN_S, MOST_BYTES, TAIL_BYTES, RangedFile, Spans

_MOST_METADATA_BYTES = 1 << 24  # pictures among them
_QUARTER_BYTES = 1 << 16  # that the decoder reads at each quarter of the file, to see whether files were joined
_LAST_BYTES = 1 << 16  # in which the decoder looks for the last frame
_FRAMES_AHEAD = 16  # that ffmpeg reads before it returns one
#: How far off a guess may be, as a share of the distance to the nearest known frame: in the first try, in the second …
_DOUBTS = (0.1, 0.3, 1.0, 1.0)
_NEAR_BYTES = 10 * (1 << 16)  # that are added to the distance: also a near guess may be some frames off


class FlacLayout:
    """The frames that are known of a Flac file, as `ranged_file.Layout`.

    Args:
        room: the first byte and the number of bytes of the block of metadata that takes the seek table.
        first_byte: of the first frame.
        block: the largest number of samples of a frame.
    """

    def __init__(
        self, size: int, room: tuple[int, int], *, first_byte: int, rate_hz: int, n_frames: int, block: int
    ) -> None:
        self.rate_hz, self.n_frames, self.fits = rate_hz, n_frames, True
        self._size, self._room, self._first_byte, self._block = size, room, first_byte, block
        self._known = {0: first_byte, n_frames: size}  # sample -> byte
        self._sort()

    def cost(self, spans: Spans) -> tuple[int, int]:
        """As `Layout.cost`."""
        if (2 * len(spans) + 3) * flac.SEEK_POINT.size > self._room[1]:
            return 1, self._size
        n_samples = sum(end - first for first, end in map(self._samples_of, spans))
        doubt = _DOUBTS[0] * self._size / 16  # a guess lies a sixteenth of the file from a quarter, in the mean
        n_bytes = n_samples * self._size / self.n_frames + len(spans) * 2 * (doubt + BLOCK_BYTES)
        return 5 + len(spans), round(n_bytes) + HEAD_BYTES + TAIL_BYTES + 3 * BLOCK_BYTES

    def fetch(self, file: RangedFile, spans: Spans) -> bool:
        """As `Layout.fetch`."""
        self._look(file)
        if not self.fits:
            return False
        asked = [self._samples_of(span) for span in spans]
        for doubt in _DOUBTS:
            missing = [span for span in asked if not file.holds(*self._known_around(span))]
            if not missing:
                return self._write_table(file, asked)
            guesses = [self._guess_around(span, doubt) for span in missing]
            if file.held_bytes + sum(end - first for first, end in guesses) > MOST_BYTES:
                break
            self._get(file, guesses)
        self.fits = False
        return False

    def _look(self, file: RangedFile) -> None:
        """Fetch what the decoder reads of any Flac file, and see whether it is what its header says."""
        tail = (self._size - TAIL_BYTES, self._size)
        if file.holds(*tail):
            return
        quarters = [self._size * quarter // 4 for quarter in (1, 2, 3)]
        start_bytes = 2 * _FRAMES_AHEAD * self._block * self._size // self.n_frames
        start = (self._first_byte, self._first_byte + start_bytes)
        self._get(file, [start, *((at, at + _QUARTER_BYTES) for at in quarters), tail])
        self.fits = flac.is_as_claimed(ByteView(file))

    def _samples_of(self, span: tuple[float, float]) -> tuple[int, int]:
        """The samples (first, end) that decoding a span reads."""
        first, end = (round(at_s * self.rate_hz) for at_s in (span[0] - MARGIN_S, span[1] + MARGIN_S))
        end += _FRAMES_AHEAD * self._block
        return min(max(0, first), self.n_frames), min(end, self.n_frames)

    def _known_around(self, span: tuple[int, int]) -> tuple[int, int]:
        """The bytes of the last known frame at or before a span's samples, and of the first one at or behind them."""
        before = bisect_right(self._samples, span[0]) - 1
        behind = bisect_left(self._samples, span[1])
        return self._bytes[before], self._bytes[behind]

    def _guess_around(self, span: tuple[int, int], doubt: float) -> tuple[int, int]:
        """The bytes that a span's frames lie in, probably."""
        first, end = self._known_around(span)
        (begin, off), (behind, off_behind) = (self._guess(sample, doubt) for sample in span)
        return max(first, begin - off), min(end, behind + off_behind)

    def _guess(self, sample: int, doubt: float) -> tuple[int, int]:
        """The byte of a sample, if the frames between two known ones have one size; and how far off that may be."""
        behind = max(1, bisect_left(self._samples, sample))
        (first, end), (first_byte, end_byte) = (
            self._samples[behind - 1 : behind + 1],
            self._bytes[behind - 1 : behind + 1],
        )
        at = first_byte + (sample - first) * (end_byte - first_byte) // (end - first)
        return at, int(doubt * (_NEAR_BYTES + min(at - first_byte, end_byte - at)))

    def _get(self, file: RangedFile, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges, and know the frames in them."""
        ranges = [
            (
                max(self._first_byte, first // BLOCK_BYTES * BLOCK_BYTES),
                min(self._size, -(-end // BLOCK_BYTES) * BLOCK_BYTES),
            )
            for first, end in ranges
        ]  # whole blocks
        file.expect(ranges)
        for first, end in ranges:
            frames = flac.flac_frames(file.read_at(first, end - first), self._block)
            for (_, sample), (offset, next_sample) in pairwise(frames):
                if 0 < next_sample - sample <= self._block:
                    self._known[sample] = first + offset
        self._sort()

    def _sort(self) -> None:
        self._samples, self._bytes = (list(values) for values in zip(*sorted(self._known.items()), strict=True))

    def _write_table(self, file: RangedFile, asked: Iterable[tuple[int, int]]) -> bool:
        """Put a seek table into the file. Returns whether another one was there."""
        if self._bytes != sorted(set(self._bytes)):  # some only look like frames
            self.fits = False
            return False
        known = [byte for span in asked for byte in self._known_around(span)]
        known += [self._first_byte, self._bytes[bisect_right(self._bytes, self._size - _LAST_BYTES) - 1]]
        sample_at = dict(zip(self._bytes, self._samples, strict=True))
        points = {(sample_at[byte], byte - self._first_byte) for byte in known if byte < self._size}
        at, n_bytes = self._room
        table = flac.seek_table(points, n_bytes)
        if file.read_at(at, n_bytes) == table:
            return False
        kind = file.read_at(at - 4, 1)[0]
        file.replace(at - 4, bytes([kind & 0x80 | flac.SEEK_TABLE]))
        file.replace(at, table)
        return True


def flac_layout(file: RangedFile) -> FlacLayout | None:
    """The layout of a Flac file; None: it is no such file, its length is unknown, or it has no room for a seek table.

    Fetches all its metadata, which ffmpeg reads, too.
    """
    if file.read_at(0, 4) != b"fLaC":
        return None
    info, rooms, end = b"", [(0, 0)], 4
    for kind, at, n_bytes, _ in flac.metadata_blocks(file):
        end = at + n_bytes
        if end > min(file.size, _MOST_METADATA_BYTES):
            return None
        file.expect([(at, end + 4)])
        if kind in (flac.PADDING, flac.SEEK_TABLE):
            rooms.append((n_bytes, at))
        if kind == 0:
            info = file.read_at(at, n_bytes)
    block, packed = int.from_bytes(info[2:4]), int.from_bytes(info[10:18])
    rate_hz, n_frames = packed >> 44, packed & 0xF_FFFF_FFFF
    room_bytes, room = max(rooms)
    begins_at_0 = file.read_at(end, 5)[4:] == b"\0"  # the number of the first frame: other files lack their beginning
    if not (rate_hz and n_frames and block and room_bytes and begins_at_0):
        return None
    return FlacLayout(file.size, (room, room_bytes), first_byte=end, rate_hz=rate_hz, n_frames=n_frames, block=block)
