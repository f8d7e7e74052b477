"""Chunks: the sound of WAV files, and where it ends."""

import re

from mtl_core.audio.decoding.byte_view import ByteView

_MAX_CHUNKS = 1_000  # before the sound of a WAV file
#: 16-bit PCM is otherwise probed for DTS, which reads 0.9 MB and takes 17 ms.
_WAV_OPTIONS = (("max_probe_packets", "1"), ("probesize", "32768"), ("max_size", "65536"))  # packets of 64 KiB


def wav_files(view: ByteView) -> list[tuple[ByteView, tuple[tuple[str, str], ...]]]:
    """The WAV files that were joined. The sound of each ends where its header says, unless no chunk follows there."""
    parts = []
    start = 0
    while (end := _wav_sound_end(view, start)) is not None:
        follows = view.read_at(end, 12)
        if follows[:4] not in (b"RIFF", b"RF64") or follows[8:] != b"WAVE":
            break
        parts.append((view.part(start, end), _WAV_OPTIONS))
        start = end
    is_short = end is not None and len(view) - end >= 12 and not _is_chunk(view, end)
    options = (*_WAV_OPTIONS, *([("ignore_length", "1")] if is_short else []))
    return [*parts, (view.part(start), options)]


def _wav_sound_end(view: ByteView, start: int) -> int | None:
    """The byte behind the chunk "data" of the WAV file at `start`; None where there is no such chunk."""
    at, size_64 = start + 12, 0
    for _ in range(_MAX_CHUNKS):
        header = view.read_at(at, 8)
        if len(header) < 8:
            return None
        name, size = header[:4], int.from_bytes(header[4:], "little")
        if name == b"ds64":
            size_64 = int.from_bytes(view.read_at(at + 16, 8), "little")
        if name == b"data":
            size = size_64 if size == 0xFFFFFFFF and size_64 else size
            return at + 8 + size + size % 2 if size else None
        at += 8 + size + size % 2
    return None


def _is_chunk(view: ByteView, at: int) -> bool:
    """Whether what begins here can be a chunk: a name in letters, and a size that the file has room for."""
    header = view.read_at(at, 8)
    name, size = header[:4], int.from_bytes(header[4:], "little")
    return bool(re.fullmatch(rb"[A-Za-z0-9 _\-\xa9]{4}", name)) and at + 8 + size <= len(view) + 1
