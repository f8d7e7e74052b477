"""Skips: bytes that ffmpeg passed over between two packets of mp3 or ADTS, whose times do not show what is missing."""

from dataclasses import dataclass

from av.packet import Packet

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.headers.mpeg import LONGEST_PACKET_BYTES, tag_bytes


@dataclass(frozen=True)
class Skip:
    """Bytes that held sound. Both fields are in the stream's time base."""

    time: int  # of the packet behind them
    duration: int  # of their sound, by the size of that packet


class SkipFinder:
    """Finds the skips in a file while its packets are read."""

    def __init__(self, view: ByteView) -> None:
        self.found: list[Skip] = []
        self._view = view
        self._tags: list[range] = []  # bytes of tags between packets: a picture in one can look like packets
        self.begin()

    def begin(self) -> None:
        """The next packet is not the one behind the last."""
        self._end: int | None = None
        self._usual_bytes: int | None = None

    def check(self, packet: Packet) -> None:
        """Look at the next packet."""
        at, size = packet.pos, packet.size
        if at is None or not size:
            return
        if self._end is not None and at > self._end:
            self._note(packet, self._end, at - self._end, size)
        if size <= LONGEST_PACKET_BYTES:
            self._usual_bytes = size
        elif self._usual_bytes is not None:  # a hole and a packet
            self._note(packet, at, size - self._usual_bytes, self._usual_bytes)
        self._end = at + size

    def _note(self, packet: Packet, at: int, n_bytes: int, packet_bytes: int) -> None:
        """Note the sound of `n_bytes`, unless they are of a tag; the packet behind them has `packet_bytes`."""
        if size := tag_bytes(self._view, at):
            self._tags.append(range(at, at + size))
        is_tag = any(at in tag for tag in self._tags)
        if not is_tag and packet.pts is not None and packet.duration:
            self.found.append(Skip(packet.pts, n_bytes * packet.duration // packet_bytes))
