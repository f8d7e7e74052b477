"""MPEG audio (mp3, mp2, mp1): its frames, and the tags between them."""

import re

from mtl_core.audio.decoding.byte_view import ByteView

LONGEST_PACKET_BYTES = 1_729  # of mp3: layer II at 384 kbit/s and 32 kHz; ADTS packets are rarely longer
_LYRICS_BYTES = 1 << 17  # longer than any tag of Lyrics3
_LYRICS_END = re.compile(rb"LYRICSEND|LYRICS200")
_KBIT = {  # (MPEG 1, layer) -> kbit/s by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mpeg_frames(head: bytes) -> int | None:
    """The offset of the first of four mp3 frames, each where the one before ends; None where there are none."""
    for match in re.finditer(rb"\xff[\xe2-\xff][\x10-\xef]", head):
        at = match.start()
        for _ in range(4):
            size = mpeg_frame_bytes(head[at : at + 4])
            if size == 0:
                break
            at += size
        else:
            return match.start()
    return None


def mpeg_frame_bytes(header: bytes) -> int:
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


def tag_bytes(view: ByteView, at: int = 0) -> int:
    """The size of the tag (ID3, APE, Lyrics3) that begins at an offset; 0: there is none."""
    head = view.read_at(at, 16)
    if head.startswith(b"ID3") and len(head) >= 10:
        size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return size + (20 if head[5] & 0x10 else 10)  # with a footer
    if head.startswith(b"APETAGEX") and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    if head.startswith(b"LYRICSBEGIN"):
        end = _LYRICS_END.search(view.read_at(at, _LYRICS_BYTES))
        return end.end() if end else 128
    return 128 if head.startswith(b"TAG") else 0


def bytes_of_tags(view: ByteView) -> int:
    """The size of the ID3 and APE tags that a file begins with."""
    at = 0
    while view.read_at(at, 8).startswith((b"ID3", b"APETAGEX")) and (size := tag_bytes(view, at)):
        at += size
    return at
