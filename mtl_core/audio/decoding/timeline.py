"""Timeline: whether the times of a stream's packets tell where its sound is.

A recorder that is stopped and started again, and programs that join files, leave times that begin anew, or that leap
over an hour of which no sound is missing. Then sound is placed by the order of its packets.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

from av.audio.frame import AudioFrame
from av.packet import Packet

#: Containers whose packets carry times of their own, by ffmpeg's names. In those of streams all packets are checked.
_OF_STREAMS = {"mpegts", "flv", "rm"}
_WITH_TIMES = _OF_STREAMS | {"ogg", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "asf", "avi"}
_FIRST_PACKETS, _FIRST_BYTES = 50, 1 << 16  # at most, which are compared with the whole file
_FEW = 0.7  # of the bytes that a second takes at the start: the times may leap
_RECENT = 8  # blocks that are kept: the next read may begin in the last of them
_LONGEST_PACKET_S = 60
_JUMP_S = 1.0  # a smaller step of the times is rounding, or damage
_HELD = 0.25  # of the bytes that a step should hold: a larger one is sound or damage, not a leap


@dataclass(frozen=True, kw_only=True)
class FirstPacket:
    """The first packet of a stream that was decoded."""

    at: int  # its first byte in the file
    n_bytes: int
    duration: int  # in the stream's time base; 0: unknown
    n_frames: int  # that it decodes to

    def frame_at(self, at: int) -> int:
        """The frame that a packet at a byte begins with, in a file whose packets all have the size of the first."""
        return (at - self.at) * self.n_frames // self.n_bytes


class FirstPackets:
    """The bytes and seconds of a stream's first packets, in a container (ffmpeg's name) whose packets have times."""

    def __init__(self, packets: Iterator[Packet], time_base: Fraction, container: str) -> None:
        self._container, self._n_bytes, self._seconds = container, 0, 0.0
        first = end = None
        for packet in islice(packets, _FIRST_PACKETS) if container in _WITH_TIMES else ():
            time, duration = packet.pts, packet.duration
            if time is not None and duration:
                first, end = time if first is None else first, time + duration
                self._n_bytes += packet.size
            if self._n_bytes > _FIRST_BYTES:
                break
        if first is not None and end is not None:
            self._seconds = float((end - first) * time_base)

    def may_leap(self, n_bytes: int, duration_s: float) -> bool:
        """Whether the times of all packets are to be checked, of a file of so many bytes and seconds."""
        return self._container in _OF_STREAMS or n_bytes * self._seconds < _FEW * self._n_bytes * duration_s


def end_time(packet: Packet) -> int | None:
    """When a packet ends; when it begins, if its duration is absurd, as that of some last packets of Vorbis is."""
    if packet.pts is None:
        return None
    duration = packet.duration or 0
    return packet.pts + (duration if duration * (packet.time_base or 0) <= _LONGEST_PACKET_S else 0)


def has_jumps(packets: Iterable[Packet], time_base: Fraction) -> bool:
    """Whether times go back, stand still, or leap over more sound than the bytes between two packets could hold."""
    tick_s = float(time_base)
    n_bytes, seconds, stretch_s = 0, 0.0, 0.0  # of packets: their bytes, their durations, their steps
    last_time: int | None = None
    last_at = 0
    for packet in packets:
        time, size, at = packet.pts, packet.size, packet.pos or 0
        if time is None or not size:
            continue
        if last_time is not None:
            step_s = (time - last_time) * tick_s
            held_bytes = at - last_at
            if step_s < -_JUMP_S or (step_s > _JUMP_S and held_bytes * seconds < _HELD * n_bytes * step_s):
                return True
            stretch_s += step_s
        n_bytes += size
        seconds += (packet.duration or 0) * tick_s
        last_time, last_at = time, at
    return seconds > 2 * stretch_s + _JUMP_S


class BlocksInOrder:
    """The decoded blocks of a stream without times, or with times that are of no use. Their order is their place.

    Args:
        restart: begins to decode the stream at its start.
        rate_hz: of positions.
    """

    def __init__(self, restart: Callable[[], Iterator[AudioFrame]], rate_hz: int) -> None:
        self._restart, self._rate_hz = restart, rate_hz
        self._recent: deque[tuple[int, AudioFrame]] = deque(maxlen=_RECENT)  # decoded last, with their positions
        self._decoding: Iterator[AudioFrame] = iter(())
        self._n_frames = 0.0  # decoded

    def read(self, start: int) -> Iterator[tuple[AudioFrame, int | None]]:
        """Blocks from before frame `start` on, the first with its position.

        Decoding goes on where it stopped, or begins anew if that is behind `start`.
        """
        if not self._recent or self._recent[0][0] > start:
            self._decoding, self._n_frames = self._restart(), 0.0
            self._recent.clear()
        is_first = True
        for position, block in chain(list(self._recent), self._next_blocks()):
            yield block, position if is_first else None
            is_first = False

    def _next_blocks(self) -> Iterator[tuple[int, AudioFrame]]:
        for block in self._decoding:
            position = round(self._n_frames)
            self._n_frames += block.samples * self._rate_hz / block.sample_rate
            self._recent.append((position, block))
            yield position, block
