"""Containers: where the sound is in a file, by its bytes, and which claims of its header are wrong.

ffmpeg finds sound at a file's start, believes what headers claim, and reads only the first of several files that were
joined. This module mends that before ffmpeg opens the file:

* **Sound behind something else**: an ID3 tag, headers of a radio stream, zeros. The first signature in 64 KiB counts.
* **Joined files** (Ogg, Flac, WAV): each is a part of its own.
* **Wrong lengths**: the number of frames of an mp3 is counted (by ffmpeg) and put into its Xing header; the number
  of samples of a Flac file is taken from its last frame; the size of a WAV file's sound from the file's size, unless
  another chunk follows.
"""

import re
from dataclasses import dataclass, replace

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.headers.chunks import chunked_files
from mtl_core.audio.decoding.headers.flac import flac_files
from mtl_core.audio.decoding.headers.mpeg import id3_bytes, mpeg_frames

SEARCHED_BYTES = 1 << 16  # at the start of a file
#: Names of ffmpeg's demuxers. Others open further files or sockets (concat, SDP), or are not of recordings.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,"
    "ogg,oma,qcp,rm,sox,tak,tta,voc,w64,wav,webm,wv,xwma"
)
_ANYWHERE = re.compile(  # signatures that a file's sound may begin with behind something else
    rb"fLaC(?=[\x00\x80]\x00\x00\x22)|OggS\x00[\x02\x06]|(?:RIFF|RF64)(?=[\s\S]{4}WAVE)|FORM(?=[\s\S]{4}AIF[FC])"
    rb"|[\s\S]{4}(?=ftyp(?:M4A|M4B|mp4|iso|isom|qt|dash))|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11"
)
_AT_START = [
    *[(8, form) for form in (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV", b"AVI ")],
    *[(0, magic) for magic in (b"ID3", b"fLaC", b"OggS", b"caff", b".snd", b"riff", b"NIST_1A", b"Creative Voice")],
    *[(4, b"ftyp"), (4, b"moov"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x1a\x45\xdf\xa3")],
    *[(0, magic) for magic in (b"MAC ", b"wvpk", b"DSD ", b"FRM8", b"TTA1", b"TTA2", b"MPCK", b"MP+", b"OFR ")],
    *[(0, magic) for magic in (b"ADIF", b"#!AMR", b".RMF", b".ra\xfd", b"FLV\x01", b"tBaK", b"LA0", b"\x0b\x77")],
]
_XING_WITHIN = 64  # bytes of the first mp3 frame
_OGG_BEGINS = b"OggS\x00\x02"  # the first page of a stream


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the joined files of a file."""

    view: ByteView
    format: str | None = None  # ffmpeg's name of the demuxer; None where ffmpeg finds it
    options: tuple[tuple[str, str], ...] = ()  # of the demuxer


def has_signature(head: bytes) -> bool:
    """Whether a file's first bytes are those of a format of sound or film, though it may not be decodable."""
    mpeg = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0
    return mpeg or any(head.startswith(magic, at) for at, magic in _AT_START)


def find_parts(view: ByteView) -> list[Part]:
    """The parts of a file whose first bytes are sound; one where nothing was joined."""
    head = view.read_at(0, 16)
    if head.startswith(b"OggS"):
        return [Part(view=part) for part in _ogg_links(view)]
    if head.startswith(b"fLaC"):
        return [Part(view=part) for part in flac_files(view)]
    if files := chunked_files(view):
        return [Part(view=part, options=options) for part, options in files]
    return [Part(view=view)]


def find_sound(view: ByteView) -> list[Part]:
    """The parts of a file in which ffmpeg found nothing: its sound begins behind something else, or not at all."""
    head = view.read_at(0, SEARCHED_BYTES)
    found = _ANYWHERE.search(head, 1)
    frames = mpeg_frames(head)
    if found and (frames is None or found.start() < frames):
        return find_parts(view.part(found.start()))
    return [] if frames is None else [Part(view=view.part(frames), format="mp3")]


def with_frame_count(part: Part, n_frames: int) -> Part | None:
    """An mp3 whose Xing or Info header claims `n_frames`; None where it has no such header, or one that claims more.

    ffmpeg cuts the encoder's padding where the header says that the sound ends, be it in the middle.
    """
    view = part.view
    head = view.read_at(0, 10)
    start = 10 + id3_bytes(head) if head.startswith(b"ID3") else 0
    found = re.search(rb"(?:Xing|Info)[\s\S]{3}([\s\S])([\s\S]{4})", view.read_at(start, _XING_WITHIN))
    if not found or not found[1][0] & 1 or int.from_bytes(found[2]) >= n_frames:
        return None
    return replace(part, view=view.part(0, patches={start + found.start(2): n_frames.to_bytes(4)}))


def _ogg_links(view: ByteView) -> list[ByteView]:
    """The links of a chained Ogg file: each begins with the first pages of its streams."""
    starts, end_of_first_page = [], -1
    for at in view.find_all(_OGG_BEGINS):
        if at != end_of_first_page:
            starts.append(at)
        end_of_first_page = at + _ogg_page_bytes(view.read_at(at, 27 + 255))
    starts = starts or [0]
    return [view.part(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _ogg_page_bytes(page: bytes) -> int:
    n_segments = page[26] if len(page) > 26 else 0
    return 27 + n_segments + sum(page[27 : 27 + n_segments])
