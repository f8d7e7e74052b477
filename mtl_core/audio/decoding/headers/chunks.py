"""Chunks: files whose sound is one chunk among others (WAV, RF64, Wave64, AIFF, CAF), and where that chunk ends.

Each chunk has a name and a size. A program that was stopped, or that wrote more than 4 GiB, leaves a size that is too
small. Then the sound reaches to the end of the file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mtl_core.audio.decoding.byte_view import ByteView

Options = tuple[tuple[str, str], ...]  # of ffmpeg's demuxer

_MAX_CHUNKS = 1_000  # before the sound
#: 16-bit PCM is otherwise probed for DTS, which reads 0.9 MB and takes 17 ms.
_WAV_OPTIONS = (("max_probe_packets", "1"), ("probesize", "32768"), ("max_size", "65536"))  # packets of 64 KiB
#: A claim is too small where the bytes behind it are more than this share of it. A short rest can be anything.
_REST_SHARE = 0.25
_TAG = re.compile(rb"ID3[\x02-\x04]|APETAGEX|TAG|LYRICSBEGIN")
#: Chunks that follow the sound, also where their sizes are wrong.
_KNOWN = re.compile(
    rb"LIST|id3 |ID3 |bext|iXML|_PMX|axml|cart|cue |smpl|inst|fact|PEAK|JUNK|PAD |FLLR|DISP|acid|afsp"
    rb"|MARK|INST|COMT|NAME|AUTH|ANNO|\(c\) |APPL|CHAN|info|strg|mark|pakt|chan|free|uuid|peak"
)


@dataclass(frozen=True)
class _Layout:
    """How the chunks of a format are laid out."""

    signature: re.Pattern[bytes]  # of a file's first 16 bytes
    first: int  # offset of the first chunk
    sound: bytes  # the name of the chunk with the sound begins so
    name_bytes: int = 4
    size_bytes: int = 4
    order: Literal["little", "big"] = "little"
    counts_header: bool = False  # whether a size includes the name and the size
    align: int = 2  # chunks begin at multiples of so many bytes
    options: Options = ()

    def header(self, view: ByteView, at: int) -> tuple[bytes, int]:
        """The name of the chunk at an offset, and the size of its body; an empty name at the end of the file."""
        header = view.read_at(at, self.header_bytes)
        if len(header) < self.header_bytes:
            return b"", 0
        size = int.from_bytes(header[self.name_bytes :], self.order)
        return header[: self.name_bytes], max(0, size - self.header_bytes * self.counts_header)

    @property
    def header_bytes(self) -> int:
        return self.name_bytes + self.size_bytes


_RIFX = _Layout(re.compile(rb"RIFX....WAVE", re.DOTALL), 12, b"data", order="big")
_LAYOUTS = [
    _RIFX,
    _Layout(re.compile(rb"(?:RIFF|RF64)....WAVE", re.DOTALL), 12, b"data", options=_WAV_OPTIONS),
    _Layout(re.compile(rb"BW64....WAVE", re.DOTALL), 12, b"data"),
    _Layout(re.compile(rb"FORM....AIF[FC]", re.DOTALL), 12, b"SSND", order="big"),
    _Layout(re.compile(rb"caff\x00\x01"), 8, b"data", size_bytes=8, order="big", align=1),
    _Layout(re.compile(rb"riff\x2e\x91\xcf\x11"), 40, b"data", 16, 8, counts_header=True, align=8),
]
_AU_ENCODINGS = {(1, 16): 3, (1, 24): 4, (1, 32): 5, (3, 32): 6, (3, 64): 7}  # (codec of WAV, bits) -> of AU


@dataclass(frozen=True)
class _SoundChunk:
    """The chunk that holds a file's sound."""

    body: int  # its first byte behind the header
    size: int  # of the body, as claimed
    size_at: int  # where the size is written
    size_bytes: int
    is_odd: bool  # whether a byte of padding belongs behind it, which some programs leave out

    def ends(self, align: int) -> tuple[int, ...]:
        """Where the next chunk may begin."""
        end = self.body + self.size
        return (end + -end % align, end) if self.is_odd else (end,)


def chunked_files(view: ByteView) -> list[tuple[ByteView, Options]]:
    """The files of chunks that were joined, with true sizes, and the demuxer's options; empty: this is none."""
    layout = next((layout for layout in _LAYOUTS if layout.signature.match(view.read_at(0, 16))), None)
    if layout is None:
        return []
    parts: list[tuple[ByteView, Options]] = []
    end: int | None = 0
    while end is not None:
        view = view.part(end)
        chunk = _sound_chunk(layout, view)
        end = None if chunk is None else _next_file(layout, view, chunk)
        file = view.part(0, end)
        parts.append((file if chunk is None else _with_true_size(layout, file, chunk), layout.options))
    return parts


def _sound_chunk(layout: _Layout, view: ByteView) -> _SoundChunk | None:
    """The sound of the file at the start of a view; None where there is no such chunk."""
    size_64 = None
    for at, name, size in _chunks(layout, view, layout.first):
        body = at + layout.header_bytes
        if name == b"ds64":
            size_64 = body + 8, int.from_bytes(view.read_at(body + 8, 8), "little")
        if name.startswith(layout.sound):
            size_at, size_bytes = at + layout.name_bytes, layout.size_bytes
            if size == 0xFFFFFFFF and size_64:
                (size_at, size), size_bytes = size_64, 8
            is_odd = (body + size) % layout.align != 0
            return _SoundChunk(body, size, size_at, size_bytes, is_odd)
    return None


def _next_file(layout: _Layout, view: ByteView, chunk: _SoundChunk) -> int | None:
    """Where the next file begins, right behind the sound of this one; None where there is none."""
    ends = chunk.ends(layout.align)
    return next((end for end in ends if layout.signature.match(view.read_at(end, 16))), None)


def _chunks(layout: _Layout, view: ByteView, at: int) -> Iterator[tuple[int, bytes, int]]:
    """The chunks from an offset on: offset, name, size of the body."""
    for _ in range(_MAX_CHUNKS):
        name, size = layout.header(view, at)
        if not name:
            return
        yield at, name, size
        at += layout.header_bytes + size
        at += -at % layout.align


def _with_true_size(layout: _Layout, file: ByteView, chunk: _SoundChunk) -> ByteView:
    """The file, without a claim of too few bytes, as one whose samples ffmpeg decodes in the right byte order."""
    patches = _true_size(layout, file, chunk)
    if layout is _RIFX and (au := _as_au(file, chunk.body)):
        return file.part(0, len(file) if patches else min(len(file), chunk.body + chunk.size), au)
    return file.part(0, patches=patches)


def _true_size(layout: _Layout, view: ByteView, chunk: _SoundChunk) -> dict[int, bytes]:
    """The patch of a file whose sound claims too few bytes; empty where it does not."""
    rest = len(view) - chunk.body - chunk.size
    if rest < 12 or rest <= _REST_SHARE * chunk.size:
        return {}
    if any(_is_chunk(layout, view, at) for at in chunk.ends(layout.align)):
        return {}
    size = len(view) - chunk.body + layout.header_bytes * layout.counts_header
    size = min(size, 256**chunk.size_bytes - 1)  # which means: to the end of the file
    return {chunk.size_at: size.to_bytes(chunk.size_bytes, layout.order)}


def _as_au(rifx: ByteView, body: int) -> dict[int, bytes]:
    """The patch that makes a RIFX file, whose samples ffmpeg takes for little-endian, one of AU; empty for 8 bits."""
    formats = [at + _RIFX.header_bytes for at, name, _ in _chunks(_RIFX, rifx, _RIFX.first) if name == b"fmt "]
    fields = rifx.read_at(formats[0], 16) if formats else b""
    codec, channels, rate_hz, bits = (int.from_bytes(fields[at:end]) for at, end in ((0, 2), (2, 4), (4, 8), (14, 16)))
    encoding = _AU_ENCODINGS.get((codec, bits))
    if encoding is None:
        return {}
    numbers = (body, 0xFFFFFFFF, encoding, rate_hz, channels)
    return {0: b".snd" + b"".join(number.to_bytes(4) for number in numbers)}


def _is_chunk(layout: _Layout, view: ByteView, at: int) -> bool:
    """Whether what begins here can be a tag or a chunk: a name in letters, and a size that the file has room for."""
    if _TAG.match(view.read_at(at, 16)):
        return True
    name, size = layout.header(view, at)
    if _KNOWN.match(name):
        return True
    has_name = re.fullmatch(rb"[A-Za-z0-9 _\-\xa9]{4}", name[:4])
    return bool(has_name) and at + layout.header_bytes + size <= len(view) + 1
