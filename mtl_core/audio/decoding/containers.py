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
_FLAC_BEGINS = b"fLaC\x00\x00\x00\x22"  # with more than one block of metadata, as all encoders write it
_FLAC_TAIL_BYTES = 1 << 17  # longer than any frame of Flac but those of 8 channels at 32 bits


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


def tag_bytes(data: bytes) -> int:
    """The size of the tag that begins with these bytes, found between two frames of mp3 or ADTS; 0: it is no tag."""
    if data.startswith(b"ID3") and len(data) >= 10:
        return 10 + _id3_bytes(data)
    if data.startswith(b"APETAGEX") and len(data) >= 16:
        return 32 + int.from_bytes(data[12:16], "little")
    return 128 if data.startswith((b"TAG", b"LYRICSBEGIN")) else 0


def find_parts(view: ByteView) -> list[Part]:
    """The parts of a file whose first bytes are sound; one where nothing was joined."""
    head = view.read_at(0, 16)
    if head.startswith(b"OggS"):
        return [Part(view=part) for part in _ogg_links(view)]
    if head.startswith(b"fLaC"):
        return [Part(view=part) for part in _flac_files(view)]
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _wav_files(view)
    return [Part(view=view)]


def find_sound(view: ByteView) -> list[Part]:
    """The parts of a file in which ffmpeg found nothing: its sound begins behind something else, or not at all."""
    head = view.read_at(0, SEARCHED_BYTES)
    found = _ANYWHERE.search(head, 1)
    frames = _mpeg_frames(head)
    if found and (frames is None or found.start() < frames):
        return find_parts(_part(view, found.start()))
    return [] if frames is None else [Part(view=_part(view, frames), format="mp3")]


def with_frame_count(part: Part, n_frames: int) -> Part | None:
    """An mp3 whose Xing or Info header claims `n_frames`; None where it has no such header, or one that claims more.

    ffmpeg cuts the encoder's padding where the header says that the sound ends, be it in the middle.
    """
    view = part.view
    head = view.read_at(0, 10)
    start = 10 + _id3_bytes(head) if head.startswith(b"ID3") else 0
    found = re.search(rb"(?:Xing|Info)[\s\S]{3}([\s\S])([\s\S]{4})", view.read_at(start, _XING_WITHIN))
    if not found or not found[1][0] & 1 or int.from_bytes(found[2]) >= n_frames:
        return None
    return replace(part, view=_part(view, 0, patches={start + found.start(2): n_frames.to_bytes(4)}))


def _id3_bytes(head: bytes) -> int:
    """The size of an ID3 tag behind its header of 10 bytes."""
    return sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _part(view: ByteView, start: int, end: int | None = None, patches: dict[int, bytes] | None = None) -> ByteView:
    return ByteView(view, start, len(view) if end is None else end, patches)


def _ogg_links(view: ByteView) -> list[ByteView]:
    """The links of a chained Ogg file: each begins with the first pages of its streams."""
    starts, end_of_first_page = [], -1
    for at in view.find_all(_OGG_BEGINS):
        if at != end_of_first_page:
            starts.append(at)
        end_of_first_page = at + _ogg_page_bytes(view.read_at(at, 27 + 255))
    starts = starts or [0]
    return [_part(view, start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _ogg_page_bytes(page: bytes) -> int:
    n_segments = page[26] if len(page) > 26 else 0
    return 27 + n_segments + sum(page[27 : 27 + n_segments])


def _mpeg_frames(head: bytes) -> int | None:
    """The offset of the first of four mp3 frames, each where the one before ends; None where there are none."""
    for match in re.finditer(rb"\xff[\xe2-\xff][\x10-\xef]", head):
        at = match.start()
        for _ in range(4):
            size = _mpeg_frame_bytes(head[at : at + 4])
            if size == 0:
                break
            at += size
        else:
            return match.start()
    return None


LONGEST_PACKET = 1_729  # bytes of mp3: layer II at 384 kbit/s and 32 kHz; ADTS packets are rarely longer
_KBIT = {  # (MPEG 1, layer) -> kbit/s by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _mpeg_frame_bytes(header: bytes) -> int:
    """The size of the MPEG audio frame with this header of 4 bytes; 0 where it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = (header[1] >> 3) & 3, 4 - ((header[1] >> 1) & 3)
    bit_rate, rate = header[2] >> 4, (header[2] >> 2) & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return 0
    rate_hz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits, padding = 1000 * _KBIT[version == 3, layer][bit_rate], (header[2] >> 1) & 1
    if layer == 1:
        return 4 * (12 * bits // rate_hz + padding)
    return (72 if layer == 3 and version != 3 else 144) * bits // rate_hz + padding


def _flac_files(view: ByteView) -> list[ByteView]:
    """The Flac files that were joined, each with the number of samples that its last frame tells."""
    claimed, found = _flac_claim(view), _flac_end(view)
    starts = [0]
    if found is not None and (found != claimed or not _flac_ascends(view, found)):
        starts = [at for at in view.find_all(_FLAC_BEGINS) if at == 0 or _flac_claim(_part(view, at))] or [0]
    parts = []
    for start, end in zip(starts, [*starts[1:], len(view)], strict=True):
        part = _part(view, start, end)
        n_samples = found if len(starts) == 1 else _flac_end(part)
        if n_samples is not None and n_samples != _flac_claim(part):
            packed = int.from_bytes(part.read_at(21, 5)) & ~0xF_FFFF_FFFF | n_samples
            part = _part(view, start, end, {21: packed.to_bytes(5)})
        parts.append(part)
    return parts


def _flac_claim(view: ByteView) -> int:
    """The number of samples that STREAMINFO claims; 0: unknown."""
    return int.from_bytes(view.read_at(21, 5)) & 0xF_FFFF_FFFF


def _flac_end(view: ByteView) -> int | None:
    """The sample at which the last frame ends; None where no frame is found in the last bytes."""
    start = max(0, len(view) - _FLAC_TAIL_BYTES)
    ends = _flac_frames(view.read_at(start, _FLAC_TAIL_BYTES), _flac_block(view))
    return ends[-1] if ends else None


def _flac_ascends(view: ByteView, end: int) -> bool:
    """Whether frames in the middle come before the end and after each other, as in a file that was not joined."""
    positions = []
    for quarter in (1, 2, 3):
        frames = _flac_frames(view.read_at(len(view) * quarter // 4, SEARCHED_BYTES), _flac_block(view))
        positions += frames[:1]
    return positions == sorted(positions) and all(position < end for position in positions)


def _flac_block(view: ByteView) -> int:
    """The samples of each frame, by STREAMINFO; the largest where they vary."""
    return int.from_bytes(view.read_at(10, 2))


_FLAC_HEADER = re.compile(rb"\xff[\xf8\xf9][\x10-\xff][\x00-\xaf]")
_FLAC_BLOCKS = {1: 192} | {code: 576 << (code - 2) for code in range(2, 6)}  # code -> samples of a frame
_FLAC_BLOCKS |= {code: 256 << (code - 8) for code in range(8, 16)}


def _flac_frames(data: bytes, block: int) -> list[int]:
    """The samples at which the frames in these bytes end, in order; a frame is known by its header's checksum."""
    ends = []
    for match in _FLAC_HEADER.finditer(data):
        header = data[match.start() : match.start() + 16]
        number, size = _utf8_number(header[4:])
        code, rate_code = header[2] >> 4, header[2] & 15
        at = 4 + size
        if size == 0 or code == 0:
            continue
        n_samples = _FLAC_BLOCKS.get(code, 0)
        if code in (6, 7):
            n_samples, at = int.from_bytes(header[at : at + code - 5]) + 1, at + code - 5
        at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
        if at < len(header) and _crc8(header[:at]) == header[at]:
            ends.append((number if header[1] & 1 else number * block) + n_samples)
    return ends


def _utf8_number(data: bytes) -> tuple[int, int]:
    """The number at the start of these bytes, coded as UTF-8 extended to 36 bits, and its size; (0, 0) if damaged."""
    if not data or data[0] < 0x80:
        return (data[0], 1) if data else (0, 0)
    size = 8 - (data[0] ^ 0xFF).bit_length()
    if not 2 <= size <= 7 or len(data) < size or any(byte & 0xC0 != 0x80 for byte in data[1:size]):
        return 0, 0
    number = data[0] & (0x7F >> size)
    for byte in data[1:size]:
        number = number << 6 | byte & 0x3F
    return number, size


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


_MAX_CHUNKS = 1_000  # before the sound of a WAV file
#: 16-bit PCM is otherwise probed for DTS, which reads 0.9 MB and takes 17 ms.
_WAV_OPTIONS = (("max_probe_packets", "1"), ("probesize", "32768"), ("max_size", "65536"))  # packets of 64 KiB


def _wav_files(view: ByteView) -> list[Part]:
    """The WAV files that were joined. The sound of each ends where its header says, unless no chunk follows there."""
    parts: list[Part] = []
    start = 0
    while (end := _wav_sound_end(view, start)) is not None:
        follows = view.read_at(end, 12)
        if follows[:4] not in (b"RIFF", b"RF64") or follows[8:] != b"WAVE":
            break
        parts.append(Part(view=_part(view, start, end), options=_WAV_OPTIONS))
        start = end
    is_short = end is not None and len(view) - end >= 12 and not _is_chunk(view, end)
    options = (*_WAV_OPTIONS, *([("ignore_length", "1")] if is_short else []))
    return [*parts, Part(view=_part(view, start), options=options)]


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
