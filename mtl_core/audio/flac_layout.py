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
from mtl_core.audio.decoding.reach import grid_frames, margin_frames
from mtl_core.audio.ranged_file import BLOCK_BYTES, HEAD_BYTES, MOST_BYTES, TAIL_BYTES, RangedFile, Spans

_MOST_METADATA_BYTES = 1 << 24  # pictures among them
_QUARTER_BYTES = 1 << 16  # that the decoder reads at each quarter of the file, to see whether files were joined
_LAST_BYTES = 1 << 16  # in which the decoder looks for the last frame
_FRAMES_AHEAD = 16  # that ffmpeg reads before it returns one
_MOST_FRAMES = 50_000  # of a range: more are no sound
#: How far off a guess may be, as a share of the distance to the nearest known frame: in the first try, in the second …
_DOUBTS = (0.1, 0.3, 1.0, 1.0)
_NEAR_BYTES = 10 * (1 << 16)  # that are added to the distance: a near guess, too, may be some frames off


class FlacLayout:
    """The frames that are known of a Flac file, as `ranged_file.Layout`.

    Spans can be fetched once. For others the decoder would have to open the file again, with another seek table.

    Args:
        room: the first byte and the number of bytes of the block of metadata that takes the seek table.
        first_byte: of the first frame.
        block: the largest number of samples of a frame.
    """

    def __init__(
        self, size: int, room: tuple[int, int], *, first_byte: int, rate_hz: int, n_frames: int, block: int
    ) -> None:
        self.rate_hz, self.n_frames = rate_hz, n_frames
        self._size, self._room, self._first_byte, self._block = size, room, first_byte, block
        self._known = {0: first_byte, n_frames: size}  # sample -> byte of its frame; the last one is the file's end
        self._sort()
        self._fetched: frozenset[tuple[float, float]] | None = None  # spans

    def cost(self, spans: Spans) -> tuple[int, int]:
        """As `Layout.cost`."""
        n_samples = sum(end - first for first, end in map(self._samples_of, spans))
        doubt = _DOUBTS[0] * self._size / 16  # a guess lies a sixteenth of the file from a quarter, in the mean
        n_bytes = n_samples * self._size / self.n_frames + len(spans) * 2 * (doubt + BLOCK_BYTES)
        # The head, the first frames, three quarters and the end are requests, too.
        return 6 + len(spans), round(n_bytes) + HEAD_BYTES + TAIL_BYTES + 3 * BLOCK_BYTES

    def fetch(self, file: RangedFile, spans: Spans) -> bool:
        """As `Layout.fetch`. Returns False, too, where frames do not follow each other, as where bytes are damaged."""
        if self._fetched is None:
            self._fetched = frozenset(spans if self._find(file, spans) else ())
        return self._fetched.issuperset(spans)

    def _find(self, file: RangedFile, spans: Spans) -> bool:
        """Fetch the frames of spans and write a seek table. Returns False where that is not possible."""
        end = (self._size - TAIL_BYTES, self._size)
        quarters = [self._size * quarter // 4 for quarter in (1, 2, 3)]
        first_frames_bytes = 2 * _FRAMES_AHEAD * self._block * self._size // self.n_frames
        first_frames = (self._first_byte, self._first_byte + first_frames_bytes)
        if not self._get(file, [first_frames, *((at, at + _QUARTER_BYTES) for at in quarters), end]):
            return False
        if not flac.is_as_claimed(ByteView(file)):
            return False
        asked = [self._samples_of(span) for span in spans]
        for doubt in _DOUBTS:
            missing = [span for span in asked if not file.holds(*self._known_around(span))]
            if not missing:
                return self._write_table(file, asked)
            if not self._get(file, [self._guess_around(span, doubt) for span in missing]):
                return False
        return False

    def _samples_of(self, span: tuple[float, float]) -> tuple[int, int]:
        """The samples (first, end) that decoding a span reads."""
        margin = margin_frames(self.rate_hz) + grid_frames(self.rate_hz)
        first, end = round(span[0] * self.rate_hz) - margin, round(span[1] * self.rate_hz) + margin
        end += _FRAMES_AHEAD * self._block
        return min(max(0, first), self.n_frames), min(end, self.n_frames)

    def _known_around(self, span: tuple[int, int]) -> tuple[int, int]:
        """The bytes of the last known frame at or before a span's samples, and of the first one at or behind them."""
        before, behind = self._indices_around(span)
        return self._bytes[before], self._bytes[behind]

    def _indices_around(self, span: tuple[int, int]) -> tuple[int, int]:
        """The same frames as indices of what is known."""
        return bisect_right(self._samples, span[0]) - 1, bisect_left(self._samples, min(span[1], self.n_frames))

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

    def _get(self, file: RangedFile, ranges: Iterable[tuple[int, int]]) -> bool:
        """Fetch ranges, and note the frames in them. Returns False where there are too many bytes or frames."""
        ranges = [self._whole_blocks(first, end) for first, end in ranges]
        if file.held_bytes + sum(end - first for first, end in ranges) > MOST_BYTES:
            return False
        file.expect(ranges)
        for first, end in ranges:
            # A frame is known by the one before, which may lie in bytes that were fetched earlier.
            before, behind = max(self._first_byte, first - BLOCK_BYTES), min(self._size, end + BLOCK_BYTES)
            first, end = before if file.holds(before, first) else first, behind if file.holds(end, behind) else end
            frames = flac.frame_headers(file.read_at(first, end - first), self._block, _MOST_FRAMES)
            if len(frames) == _MOST_FRAMES:
                return False
            firsts, ends = {frame.first for frame in frames}, {frame.first + frame.n_samples for frame in frames}
            for frame in frames:  # one without a neighbour only looks like a frame
                if frame.first in ends or frame.first + frame.n_samples in firsts:
                    self._known[frame.first] = first + frame.at
        self._sort()
        return True

    def _whole_blocks(self, first: int, end: int) -> tuple[int, int]:
        first, end = first // BLOCK_BYTES * BLOCK_BYTES, -(-end // BLOCK_BYTES) * BLOCK_BYTES
        return max(self._first_byte, first), min(self._size, end)

    def _sort(self) -> None:
        self._samples, self._bytes = (list(values) for values in zip(*sorted(self._known.items()), strict=True))

    def _write_table(self, file: RangedFile, asked: Iterable[tuple[int, int]]) -> bool:
        """Put a seek table into the file, instead of any other. Returns False where there is no room or damage."""
        in_end = bisect_right(self._bytes, self._size - _LAST_BYTES) - 1
        # The decoder also reads the first frames, and looks for the last one.
        asked = [(0, _FRAMES_AHEAD * self._block), *asked, (self._samples[in_end], self.n_frames)]
        if not all(self._are_in_a_row(file, span) for span in asked):
            return False
        starts = {self._indices_around(span)[0] for span in asked}
        points = [(self._samples[i], self._bytes[i] - self._first_byte) for i in starts]
        try:
            table = flac.seek_table(points, self._room[1])
        except ValueError:
            return False
        for kind, at, _, is_last in flac.metadata_blocks(file):
            if kind == flac.SEEK_TABLE or at == self._room[0]:
                kind = flac.SEEK_TABLE if at == self._room[0] else flac.PADDING
                file.replace(at - 4, bytes([is_last << 7 | kind]))
        file.replace(self._room[0], table)
        return True

    def _are_in_a_row(self, file: RangedFile, span: tuple[int, int]) -> bool:
        """Whether each frame of some samples, but the last of the file, is known and follows the one before."""
        before, behind = self._indices_around(span)
        frames = list(zip(self._samples, self._bytes, strict=True))[before : behind + 1]
        is_held = file.holds(frames[0][1], frames[-1][1])
        return is_held and all(
            0 < sample - last <= self._block and byte > last_byte
            for (last, last_byte), (sample, byte) in pairwise(frames)
        )


def flac_layout(file: RangedFile) -> FlacLayout | None:
    """The layout of a Flac file; None: it is no such file, its length is unknown, or it has no room for a seek table.

    Fetches all its metadata, which ffmpeg reads, too.
    """
    if file.read_at(0, 4) != b"fLaC":
        return None
    info, rooms, end, ended = b"", [(0, 0)], 4, False
    for kind, at, n_bytes, is_last in flac.metadata_blocks(file):
        end, ended = at + n_bytes, is_last
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
    frame = file.read_at(end, 5)
    begins_at_0 = frame[:2] in (b"\xff\xf8", b"\xff\xf9") and frame[4:] == b"\0"  # its number; not where a file was cut
    if not (ended and rate_hz and n_frames and block and room_bytes and begins_at_0):
        return None
    return FlacLayout(file.size, (room, room_bytes), first_byte=end, rate_hz=rate_hz, n_frames=n_frames, block=block)
