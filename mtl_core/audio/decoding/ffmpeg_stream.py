"""ffmpeg stream: the sound stream of a file, opened with PyAV: decoded sound from any position on, and where it is.

A frame is one sample of each channel. A packet holds coded sound, and decodes to a block of frames (av.AudioFrame). The
position of a block is the time of its packet, not a count: decoding goes on behind damaged bytes, and what is missing
shows as a gap. Positions are in frames of the recording, at the rate of its first block.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from mtl_core.audio.decoding.codecs import RAW_CONTAINERS, seek_rules
from mtl_core.audio.decoding.containers import FORMATS, Part, with_frame_count
from mtl_core.audio.decoding.headers.skips import SkipFinder
from mtl_core.audio.decoding.timeline import BlocksInOrder, FirstPacket, FirstPackets, end_time, has_jumps
from mtl_core.errors import TrackError

_FAR = 1 << 60  # a time that no recording reaches, in any time base
_SEEK_BACK_S = (0, 1, 10)  # a seek that fails is tried again so much earlier
_LONGEST_S = 31_536_000  # a year
_MAX_ERRORS = 50  # in a row: a demuxer can repeat an error for ever
_INDEX_BYTES = 1 << 25  # ffmpeg's index of frames: 1.4 million, 10 h of mp3


@dataclass(frozen=True, kw_only=True)
class SoundLimits:
    """What a recording may be; one beyond fails as `too_large` before its sound is decoded.

    Raises:
        ValueError: a limit is out of its range.
    """

    max_duration_s: float = 8 * 3600.0
    max_channels: int = 64
    max_rate_hz: int = 768_000
    min_rate_hz: int = 1_000  # of real recordings. Below it a header is damaged: the track fails as `corrupt`

    def __post_init__(self) -> None:
        if not 0 < self.max_duration_s <= _LONGEST_S:
            raise ValueError(
                f"the longest duration must be above 0 and at most {_LONGEST_S} s, got {self.max_duration_s}"
            )
        if self.max_channels < 1:
            raise ValueError(f"the most channels must be 1 or more, got {self.max_channels}")
        if not self.min_rate_hz <= self.max_rate_hz:
            raise ValueError(f"the highest rate must be {self.min_rate_hz} Hz or more, got {self.max_rate_hz}")

    def check(self, *, rate_hz: int, n_channels: int, n_frames: int = 0) -> None:
        """Raise TrackError where a recording is beyond the limits."""
        if rate_hz < self.min_rate_hz or n_channels < 1:
            message = f"the header claims {rate_hz} Hz and {n_channels} channels"
            raise TrackError("decode", "corrupt", f"{message}: {self.min_rate_hz} Hz and 1 channel are the least")
        if rate_hz > self.max_rate_hz:
            raise TrackError("decode", "too_large", f"{rate_hz} Hz: allowed are up to {self.max_rate_hz}")
        if n_channels > self.max_channels:
            raise TrackError("decode", "too_large", f"{n_channels} channels: allowed are up to {self.max_channels}")
        if n_frames > self.max_duration_s * rate_hz:
            seconds = n_frames / rate_hz
            raise TrackError("decode", "too_large", f"{seconds:.0f} s: allowed are up to {self.max_duration_s:g}")


class FfmpegStream:
    """The default sound stream of a part of a file, else its first.

    Raises:
        TrackError: `not_audio` (no sound in the file), `unsupported` (ffmpeg has no decoder), `too_short` (it holds
            nothing), `corrupt` (nothing can be decoded), `too_large` (beyond the limits).
        av.error.FFmpegError: ffmpeg cannot open the file.
        BaseException: what reading the file raised.
    """

    def __init__(self, part: Part, limits: SoundLimits) -> None:
        self._part, self._limits = part, limits
        self._first_time, self._has_times = 0, False
        self._skips = SkipFinder(part.view)
        self._open()
        self.rate_hz = self._stream.codec_context.sample_rate or 0  # until the first block
        packets = self._packets()
        packet, first = next(self._decode(packets), (None, None))
        if packet is None or first is None:
            raise self._nothing_decoded()
        self.rate_hz = first.sample_rate
        limits.check(rate_hz=self.rate_hz, n_channels=first.layout.nb_channels)
        self._first_time = first.pts or 0
        self.first_block_frames: int = first.samples
        duration = packet.duration or 0
        n_frames = int(duration * self._time_base * self.rate_hz) or first.samples
        self._first_packet = FirstPacket(at=packet.pos or 0, n_bytes=packet.size, duration=duration, n_frames=n_frames)
        codec, container = self._stream.codec_context.name, self._container.format.name
        self.rules = seek_rules(codec, container, self._time_base, self.rate_hz)
        self._has_times = first.pts is not None and not self.rules.from_start
        self._first_packets = FirstPackets(packets, self._time_base, container)
        self._in_order = BlocksInOrder(self._restart, self.rate_hz)
        ticks = 1 / (self._time_base * self.rate_hz)
        #: Of the time base, in a frame; 0 if it is no whole number, or if positions are not times.
        self._ticks = int(ticks) if ticks.denominator == 1 and self._has_times and not self.rules.by_bytes else 0

    def close(self) -> None:
        """Close the file for ffmpeg."""
        self._container.close()

    def last_packet_end(self) -> int | None:
        """Where the last packet ends; None where packets have no times, or none that can be trusted."""
        if not self._has_times:
            return None
        ends: list[int] = []
        for time in self._times_near_the_end():
            if self._has_sought(time):
                ends = [end for end in (end_time(packet) for packet in self._packets()) if end is not None]
            if ends:
                if self._has_jumps(float((max(ends) - self._first_time) * self._time_base)):
                    self.rules = replace(self.rules, exact_times=True, on_grid=False, from_start=True)
                    self._has_times, self._ticks = False, 0
                    return None
                self._correct_frame_count(max(ends))
                return max(0, self._to_frames(max(ends)))
        return None

    def _has_jumps(self, duration_s: float) -> bool:
        """Whether times jump, in a stream that lasts so long by its times. Those of films are not checked."""
        if self._is_film or not self._first_packets.may_leap(len(self._part.view), duration_s):
            return False
        self._seek(0)
        return has_jumps(self._packets(), self._time_base)

    def _correct_frame_count(self, last_end: int) -> None:
        """Open an mp3 again, whose header claims fewer frames than it has."""
        duration = self._first_packet.duration
        if self._container.format.name == "mp3" and duration:
            corrected = with_frame_count(self._part, last_end // duration)
            if corrected is not None:
                self._part = corrected
                self._seek(0)

    def blocks(self, start: int, *, may_go_back: bool = True) -> Iterator[tuple[AudioFrame, int | None]]:
        """Decoded blocks to the end, with their positions.

        The first one lies before frame `start`, by as much as the codec needs to decode `start` exactly. A position of
        None means: right behind the block before. What cannot be decoded is left out.
        """
        self._skips.found.clear()
        if not self._has_times:
            yield from self._in_order.read(start)
            return
        first = max(0, start - self.rules.lead_frames)
        self._seek(first)
        before = self._first_time + self._to_time(first) if first else None
        last_packet, expected, ticks = None, None, self._ticks
        for packet, block in self._decode(self._packets(), before):
            time = block.pts
            if time is None and last_packet is None and first and self._part.jumps:
                break  # ffmpeg does not know the time of a Flac frame that nothing, or damage, follows
            follows = packet is last_packet or (time == expected and time is not None)
            yield block, None if follows else self._position(packet, block)
            last_packet = packet
            if ticks:
                expected = None if time is None else time + block.samples * ticks
        if last_packet is None and first and self._part.jumps:
            if not may_go_back:  # from now on ffmpeg searches
                self._part = replace(self._part, jumps=False)
                self.close()
                self._open()
            yield from self.blocks(max(0, start - 2 * self.first_block_frames), may_go_back=False)

    def skipped(self) -> list[tuple[int, int]]:
        """Damage that positions do not show, since the last call of `blocks`: the frame behind it, and its frames."""
        at_start = self._first_time
        return [(self._to_frames(skip.time), self._to_frames(at_start + skip.duration)) for skip in self._skips.found]

    def _restart(self) -> Iterator[AudioFrame]:
        self._seek(0)
        return (block for _, block in self._decode(self._packets()))

    def _open(self) -> None:
        """Open the file, or open it again: then decoding begins at its start, as it did the first time."""
        self._part.view.seek(0)
        options = {"format_whitelist": FORMATS, "indexmem": str(_INDEX_BYTES), **dict(self._part.options)}
        if self._part.jumps:
            options["fflags"] = "+fastseek"
        self._container: InputContainer = av.open(
            self._part.view, "r", self._part.format, container_options=options, metadata_errors="replace"
        )
        streams, name = self._container.streams, self._container.format.name
        stream = streams.best("audio") or next(iter(streams.audio), None)
        if not isinstance(stream, AudioStream):
            raise TrackError("decode", "not_audio", f"{name}: there is no sound in this file")
        for other in streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        pictures = [other for other in streams.video if not other.disposition & av.stream.Disposition.attached_pic]
        self._is_film = len(pictures) > 0
        self._stream, context = stream, stream.codec_context
        if context is None:
            raise TrackError("decode", "unsupported", f"{name}: ffmpeg does not decode its codec")
        context.thread_count = 1
        self._limits.check(rate_hz=context.sample_rate or 0, n_channels=context.channels)
        self._time_base = stream.time_base or Fraction(1, context.sample_rate)

    def _nothing_decoded(self) -> TrackError:
        name, codec = self._container.format.name, self._stream.codec_context.name
        self._seek(0)
        n_packets = sum(packet.size > 0 for packet in self._packets())
        if not self._stream.duration and not n_packets:
            return TrackError("decode", "too_short", f"{name}: the file holds no sound")
        return TrackError("decode", "corrupt", f"{name}: none of {n_packets} packets of {codec} can be decoded")

    def _times_near_the_end(self) -> Iterator[int]:
        """Times to seek to, so that the packets from there on include the last one."""
        entries, size = self._stream.index_entries, len(self._part.view)
        if len(entries) and "mp4" in self._container.format.name:  # its index may name bytes that are cut off
            kept = bisect_right(range(len(entries)), size, key=lambda i: entries[i].pos + entries[i].size)
            if kept == 0:
                raise TrackError("decode", "corrupt", "the file ends before its sound begins")
            if kept < len(entries):
                yield entries[kept - 1].timestamp
        # In raw containers a time is multiplied by a byte rate, and overflows: no sample there has less than a bit.
        is_raw = self._container.format.name in RAW_CONTAINERS
        yield self._first_time + self._to_time(8 * size) if is_raw else _FAR
        if self._stream.duration:
            yield self._first_time + self._stream.duration - int(1 / self._time_base)
        yield self._first_time

    def _seek(self, first: int) -> None:
        """Go to a packet at or before frame `first`."""
        for back_s in _SEEK_BACK_S:
            target = first - back_s * self.rate_hz if first else 0
            if target <= 0:
                break
            if self._has_sought(self._first_time + self._to_time(target)):
                return
        self.close()
        self._open()

    def _has_sought(self, time: int) -> bool:
        """Seek; some demuxers cannot seek to a file's last packets, or beyond them."""
        try:
            self._container.seek(time, stream=self._stream)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return False
        return True

    def _position(self, packet: Packet, block: AudioFrame) -> int | None:
        if self.rules.by_bytes and packet.pos is not None and packet.size:
            return self._first_packet.frame_at(packet.pos)
        return self._to_frames(block.pts) if self._has_times and block.pts is not None else None

    def _decode(self, packets: Iterator[Packet], before: int | None = None) -> Iterator[tuple[Packet, AudioFrame]]:
        """The blocks of packets. Packets that end before a time, or that cannot be decoded, are left out."""
        context = self._stream.codec_context
        for packet in packets:
            if before is not None and packet.pts is not None and packet.duration:
                if packet.pts + packet.duration < before:
                    continue
                before = None
            try:
                for block in context.decode(packet if packet.size else None):
                    yield packet, block
            except MemoryError:
                raise
            except av.error.FFmpegError:
                continue

    def _packets(self) -> Iterator[Packet]:
        """The packets from here on, also behind damage; the last one is empty."""
        errors, skips = 0, self._skips if self._container.format.name in ("mp3", "aac") else None
        self._skips.begin()
        while errors < _MAX_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    errors = 0
                    if skips is not None:
                        skips.check(packet)
                    yield packet
                return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                errors += 1
            except IndexError:  # PyAV's, at the end of a file with streams that began behind its header: all is read
                return

    def _to_frames(self, time: int) -> int:
        """The frame at a time of the stream."""
        numerator, denominator = self._time_base.numerator * self.rate_hz, self._time_base.denominator
        return (2 * (time - self._first_time) * numerator + denominator) // (2 * denominator)

    def _to_time(self, frame: int) -> int:
        """The time of a frame less that of the first; not later than the frame."""
        return frame * self._time_base.denominator // (self._time_base.numerator * self.rate_hz)
