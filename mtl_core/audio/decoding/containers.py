"""Containers: where the sound is in a file, by its bytes, and which claims of its header are wrong.

ffmpeg finds sound at the start of a file, trusts its header, and reads only the first of several files that were
joined. This module corrects that before ffmpeg opens the file:

* **Sound behind something else**: headers of a radio stream, zeros. The first signature in 64 KiB counts, after any ID3
  and APE tags. Formats without a signature in `_ANYWHERE` are found at the start only.
* **Joined files** (Ogg, Flac, WAV, W64, AIFF, CAF, WavPack, MP4, Matroska): each is a part of its own.
* **Wrong lengths**: ffmpeg counts the frames of an mp3, and the count is put into its Xing header. The number of
  samples of a Flac file is that of its last frame. The sound of a WAV, W64, AIFF or CAF file reaches to the end of the
  file if its header claims much less, and no chunk follows.
"""

import re
from dataclasses import dataclass, replace

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.headers.boxes import matroska_files, mp4_files
from mtl_core.audio.decoding.headers.chunks import chunked_files
from mtl_core.audio.decoding.headers.flac import are_in_order, flac_files, flac_frames, has_exact_seek_table
from mtl_core.audio.decoding.headers.mpeg import bytes_of_tags, mpeg_frame_bytes, mpeg_frames, tag_bytes

SEARCHED_BYTES = 1 << 16  # at the start of a file
#: Names of ffmpeg's demuxers. Others open further files or sockets (concat, SDP), or are not of recordings.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,"
    "ogg,oma,qcp,rm,sox,tak,tta,voc,w64,wav,webm,wv,xwma"
)
_ANYWHERE = re.compile(  # signatures that a file's sound may begin with behind something else
    rb"fLaC(?=[\x00\x80]\x00\x00\x22)|OggS\x00[\x02\x06]|(?:RIFF|RF64)(?=....WAVE)|FORM(?=....AIF[FC])"
    rb"|....(?=ftyp(?:M4A|M4B|mp4|iso|isom|qt|dash))|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11"
    rb"|wvpk(?=....[\x02-\x10]\x04)|caff(?=\x00\x01\x00\x00)|\.snd(?=\x00\x00......\x00\x00\x00[\x01-\x1b])"
    rb"|TTA1(?=[\x01-\x03]\x00)|MAC (?=.\x0f)|riff(?=\x2e\x91\xcf\x11)",
    re.DOTALL,
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

_WAVPACK_FIRST = 1 << 11  # the flag of a block that is the first of its channels


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the joined files of a file."""

    view: ByteView
    format: str | None = None  # ffmpeg's name of the demuxer; None where ffmpeg finds it
    options: tuple[tuple[str, str], ...] = ()  # of the demuxer
    jumps: bool = False  # whether ffmpeg goes to the nearest point of a seek table, and does not search


def has_signature(head: bytes) -> bool:
    """Whether a file's first bytes are those of a format of sound or film, though it may not be decodable."""
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0:
        is_text = head[1] == 0xFE  # the mark of UTF-16; of MPEG it would be layer I, which nobody uses
        is_adts = head[1] & 0xF6 == 0xF0
        return not is_text and (is_adts or len(head) < 4 or mpeg_frame_bytes(head[:4]) > 0)
    return any(head.startswith(magic, at) for at, magic in _AT_START)


def find_parts(view: ByteView) -> list[Part]:
    """The parts of a file whose first bytes are sound, or tags with sound behind them; one where nothing was joined."""
    behind = view.part(bytes_of_tags(view))
    head = behind.read_at(0, 16)
    if head.startswith(b"OggS"):
        return [Part(view=part) for part in _ogg_links(behind)]
    if head.startswith(b"fLaC"):
        return [Part(view=part, jumps=has_exact_seek_table(part)) for part in flac_files(behind)]
    if head.startswith(b"wvpk"):
        return [Part(view=part) for part in _wavpack_files(behind)]
    if head[4:8] == b"ftyp":
        return [Part(view=part) for part in mp4_files(behind)]
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return [Part(view=part) for part in matroska_files(behind)]
    if files := chunked_files(behind):
        return [Part(view=part, options=options) for part, options in files]
    return [Part(view=view)]


def find_sound(view: ByteView) -> list[Part]:
    """The parts of a file in which ffmpeg found nothing: its sound begins behind something else, or not at all."""
    n_bytes = bytes_of_tags(view)
    if n_bytes >= len(view):  # the size of a tag is damaged
        n_bytes = 0
    behind = view.part(n_bytes)
    head = behind.read_at(0, SEARCHED_BYTES)
    found = _ANYWHERE.search(head, 0 if n_bytes else 1)
    frames = mpeg_frames(head)
    if found and (frames is None or found.start() < frames):
        return find_parts(behind.part(found.start()))
    if frames is not None:
        return [Part(view=behind.part(frames), format="mp3")]
    cut = flac_frames(head)  # a file without its beginning
    return [Part(view=behind.part(cut[0][0]), format="flac")] if are_in_order(cut) else []


def with_frame_count(part: Part, n_frames: int) -> Part | None:
    """An mp3 whose Xing or Info header claims `n_frames`; None where it has no such header, or one that claims more.

    ffmpeg cuts the encoder's padding where the header says that the sound ends, be it in the middle.
    """
    view = part.view
    start = bytes_of_tags(view)
    head = view.read_at(start, SEARCHED_BYTES)
    start += len(head) - len(head.lstrip(b"\0"))  # padding
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
    if not starts or starts[0] > 0:
        starts = [0, *starts]
    return [view.part(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _ogg_page_bytes(page: bytes) -> int:
    n_segments = page[26] if len(page) > 26 else 0
    return 27 + n_segments + sum(page[27 : 27 + n_segments])


def _wavpack_files(view: ByteView) -> list[ByteView]:
    """The WavPack files that were joined: each begins with a block whose first sample is 0."""
    starts, at = [0], 0
    while (header := view.read_at(at, 32)).startswith(b"wvpk") or (size := tag_bytes(view, at)):
        if header.startswith(b"wvpk"):
            index, flags = (int.from_bytes(header[first : first + 4], "little") for first in (16, 24))
            if at > 0 and index == 0 and flags & _WAVPACK_FIRST and header[20:24] != bytes(4):
                starts.append(at)
            size = max(32, 8 + int.from_bytes(header[4:8], "little"))
        at += size
    return [view.part(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
