"""Boxes: the files in a file of MP4 or Matroska that was joined, by the sizes of its outermost boxes."""

from mtl_core.audio.decoding.byte_view import ByteView

_MAX_BOXES = 200_000  # of a file: a day in fragments of a second
_EBML = b"\x1a\x45\xdf\xa3"  # the first element of a Matroska file
_SEGMENT = b"\x18\x53\x80\x67"  # the second one, which holds all others


def mp4_files(view: ByteView) -> list[ByteView]:
    """The MP4 files that were joined: each begins with a box "ftyp"."""
    starts, at = [0], 0
    for _ in range(_MAX_BOXES):
        header = view.read_at(at, 16)
        size, name = int.from_bytes(header[:4]), header[4:8]
        if name == b"ftyp" and at > 0:
            starts.append(at)
        if size == 1:
            size = int.from_bytes(header[8:16])
        if size < 8:  # 0: to the end of the file
            break
        at += size
    return _cut(view, starts)


def matroska_files(view: ByteView) -> list[ByteView]:
    """The Matroska files that were joined. A live one does not know its size: it is searched for the next one."""
    starts = [0]
    while (end := _segment_end(view, starts[-1])) is not None and view.read_at(end, 4) == _EBML:
        starts.append(end)
    if end is None:
        found = view.find_all(_EBML, starts[-1] + 1)
        starts += [at for at in found if _segment_begin(view, at) is not None]
    return _cut(view, starts)


def _cut(view: ByteView, starts: list[int]) -> list[ByteView]:
    return [view.part(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _segment_begin(view: ByteView, at: int) -> int | None:
    """Where the segment behind an EBML header begins; None where there is no header, or no segment."""
    size, n_bytes = _number(view, at + 4)
    begin = at + 4 + n_bytes + (size or 0)
    return begin if view.read_at(begin, 4) == _SEGMENT else None


def _segment_end(view: ByteView, at: int) -> int | None:
    """The byte behind the file at an offset; None where its segment does not know its size."""
    begin = _segment_begin(view, at)
    if begin is None:
        return len(view)
    size, n_bytes = _number(view, begin + 4)
    return None if size is None else begin + 4 + n_bytes + size


def _number(view: ByteView, at: int) -> tuple[int | None, int]:
    """The size of an element, and the bytes that it is written in; None: unknown."""
    data = view.read_at(at, 8)
    n_bytes = 9 - data[0].bit_length() if data else 1
    number = int.from_bytes(data[:n_bytes]) & (1 << 7 * n_bytes) - 1
    return (None if number == (1 << 7 * n_bytes) - 1 else number), n_bytes
