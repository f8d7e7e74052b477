"""Sound file: mono samples of a recording from any position, in frames of its own rate.

Samples after a seek equal those of a whole decode (`codecs` has the rules). Samples that are missing, because bytes are
damaged, are 0, and are counted. Samples are in [-1, 1] for integer formats; a float file may hold any value, also NaN.

Legend: N samples (frames of the recording).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import soxr
from av.audio.frame import AudioFrame

from mtl_core.audio.decoding.containers import Part
from mtl_core.audio.decoding.ffmpeg_stream import FfmpegStream, SoundLimits
from mtl_core.audio.decoding.mono_run import MonoRun
from mtl_core.audio.decoding.reach import WHOLE_S
from mtl_core.errors import TrackError

#: Decoded to find where a recording ends, by whether times are exact.
_END_S = {True: 0.05, False: 2.0}
_JUMP_S = 0.1  # a larger step in inexact times is damage
_WHOLE_FRAMES = 32_000_000  # the same where every read begins at the recording's start; they take 128 MB
_INVERTED = 0.01  # the mean's share of the channels' power, -20 dB, below which they cancel each other
MAX_RUNS = 10_000  # of one read, with gaps between them; a run costs Python as much time as several blocks
_SILENCE = 1e-6  # of full-scale power, -60 dB


class Sound(Protocol):
    """A recording that can be read from any position."""

    rate_hz: int
    n_frames: int

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        """Samples (length,) float32 from frame `start` on, and how many are lost. Lost samples are 0."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@dataclass(frozen=True)
class _Gap:
    """A stretch of a recording that could not be decoded."""

    first: int  # frames `first` to `last` are silent. They are equal where the file's times do not show the gap
    last: int
    hidden: int = 0  # frames that are lost all the same


class StreamSound:
    """The `Sound` of one stream of a file. With `keep` a short recording is decoded once, and kept, as is
    one that cannot be sought in.

    Mono is the mean of the channels. Where the mean's power is 20 dB below that of the channels, they cancel each other
    out (one is inverted): then the loudest channel stands for all of them. The first samples with sound decide.

    Raises what `FfmpegStream` raises.
    """

    def __init__(self, part: Part, limits: SoundLimits, *, keep: bool = True) -> None:
        self._channel: int | None = None  # that stands for all of them; None: their mean
        self._channel_is_known = False
        self._whole: tuple[np.ndarray, list[_Gap]] | None = None
        self._stream = FfmpegStream(part, limits)
        self.rate_hz = self._stream.rate_hz
        end = self._stream.last_packet_end()
        estimate = self._decoded_end(0) if end is None else end
        limits.check(rate_hz=self.rate_hz, n_channels=1, n_frames=estimate)
        largest = _WHOLE_FRAMES if self._stream.rules.from_start else WHOLE_S * self.rate_hz
        if keep and estimate <= largest:
            samples, gaps, self.n_frames = self._decode(0, estimate + self.rate_hz)
            self._whole = samples[: self.n_frames], gaps
        elif end is None:
            self.n_frames = estimate
        else:
            start = end - int(_END_S[self._stream.rules.exact_times] * self.rate_hz)
            self.n_frames = self._decoded_end(start) or self._decoded_end(0)
        if self.n_frames == 0:
            raise TrackError("decode", "corrupt", "no packet can be decoded")

    def close(self) -> None:
        """As `Sound.close`."""
        self._stream.close()

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        """As `Sound.read`."""
        end = start + length
        if self._whole is None:
            samples, gaps, _ = self._decode(start, end)
        else:
            samples, gaps = self._whole[0][start:end], self._whole[1]
        lost = sum(max(0, min(gap.last, end) - max(gap.first, start)) for gap in gaps)
        return samples, min(length, lost + sum(gap.hidden for gap in gaps if start <= gap.first < end))

    def _decoded_end(self, start: int) -> int:
        """Where the last block from `start` on ends; 0 where none can be decoded."""
        runs = self._runs(start, None, keep_from=None)
        return max((at + _scale(run.count, run.rate_hz, self.rate_hz) for run, at in runs), default=0)

    def _decode(self, start: int, end: int) -> tuple[np.ndarray, list[_Gap], int]:
        """The samples from `start` to `end`, the gaps in them, and where the last decoded block of them ends."""
        runs: list[MonoRun] = []
        pieces = []
        for run, at in self._runs(start, end, keep_from=start):
            mono = _resample(run.mono(), run.rate_hz, self.rate_hz)
            pieces.append((at + _scale(run.skipped, run.rate_hz, self.rate_hz), mono))
            runs.append(run)
        if self._must_decode_again(runs):
            return self._decode(start, end)
        samples, gaps, filled = _join(pieces, start, end)
        gaps.append(_Gap(filled, end))
        gaps += [_Gap(position, position, lost) for position, lost in self._stream.skipped()]
        return samples, gaps, filled

    def _must_decode_again(self, runs: list[MonoRun]) -> bool:
        """Whether these runs are the first with sound, and show that one channel is to stand for all of them.

        They were mixed as the mean. From now on what stands for the channels is known.
        """
        if self._channel_is_known or not runs:
            return False
        run = max(runs, key=lambda run: run.measured)
        of_mean, of_channels = run.powers[0], run.powers[1:]
        if not of_channels.mean() > _SILENCE * run.measured:
            return False
        self._channel_is_known = True
        if of_mean < _INVERTED * of_channels.mean():
            self._channel = int(of_channels.argmax())
        return self._channel is not None

    def _runs(self, start: int, end: int | None, *, keep_from: int | None) -> Iterator[tuple[MonoRun, int]]:
        """The runs of blocks that reach into `start` to `end` (None: the end of decoding), with their positions.

        A run ends at a gap, and where the rate, the channels or the type of the samples change. Samples are kept from
        frame `keep_from` on; None: none are.

        Raises:
            TrackError: `corrupt`, there are more than `MAX_RUNS`.
        """
        tolerance = 1 if self._stream.rules.exact_times else int(_JUMP_S * self.rate_hz)
        run: MonoRun | None = None
        n_runs = 0
        enough = float("inf")  # samples of the run, that reach beyond the end
        for block, at in self._stream.blocks(start):
            if at is None and run is not None and run.count > run.skipped and run.count < enough and run.add(block):
                continue  # nearly all blocks
            if run is not None and at is not None and abs(at - self._end_of(run)) > tolerance:
                yield run, self._start_on_grid(run)
                run = None
            position = self._place(run, at)
            if end is not None and position >= end + tolerance:
                break
            keep = keep_from is not None and position + block.samples + tolerance >= keep_from
            if run is not None and not (run.add(block) if keep else run.skip(block)):
                yield run, self._start_on_grid(run)
                run = None
            if run is None:
                n_runs += 1
                if n_runs > MAX_RUNS:
                    raise TrackError("decode", "corrupt", f"more than {MAX_RUNS:,} gaps in the sound")
                run = self._new_run(block, position, start, end)
                (run.add if keep else run.skip)(block)
                enough = enough if end is None else _scale(end + tolerance - position, self.rate_hz, run.rate_hz)
        if run is not None:
            yield run, self._start_on_grid(run)

    def _end_of(self, run: MonoRun) -> int:
        return run.start + _scale(run.count, run.rate_hz, self.rate_hz)

    def _place(self, run: MonoRun | None, at: int | None) -> int:
        """The position of a block whose time says `at`, or nothing, behind a run.

        A run begins where its earliest block says, because inexact times are too late. A run that begins with the
        recording is in its place, whatever its times say.
        """
        if at is None:
            return 0 if run is None else self._end_of(run)
        if run is not None and not run.is_at_start:
            run.start = min(run.start, at - self._end_of(run) + run.start)
        return at

    def _new_run(self, block: AudioFrame, position: int, start: int, end: int | None) -> MonoRun:
        """A run at `position`. The one that holds `start` reserves memory to `end`: there can be thousands."""
        expected = 0
        if end is not None and position <= start:
            expected = _scale(end - start, self.rate_hz, block.sample_rate) + 4 * block.samples
        return MonoRun(block, position, expected, channel=self._channel, measure=not self._channel_is_known)

    def _start_on_grid(self, run: MonoRun) -> int:
        """Where a run begins. A rounded time is put on the grid of blocks, if all of them have one size."""
        sizes = set(run.block_sizes[:-1])
        if run.is_at_start or not self._stream.rules.on_grid or len(sizes) != 1:
            return run.start
        size, first = sizes.pop(), self._stream.first_block_frames
        return first + size * round((run.start - first) / size)


class LostSound:
    """A `Sound` that could not be opened: silence, all of it lost."""

    def __init__(self, rate_hz: int, n_frames: int) -> None:
        self.rate_hz, self.n_frames = rate_hz, n_frames

    def close(self) -> None:
        """As `Sound.close`."""

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        """As `Sound.read`."""
        return np.zeros(length, np.float32), length


class JoinedSound:
    """Several sounds, one behind the other, at the rate of the first."""

    def __init__(self, sounds: Sequence[Sound]) -> None:
        self._sounds = sounds
        self.rate_hz = sounds[0].rate_hz
        self._ends = list(accumulate(_scale(sound.n_frames, sound.rate_hz, self.rate_hz) for sound in sounds))
        self.n_frames = self._ends[-1]

    def close(self) -> None:
        """As `Sound.close`."""
        for sound in self._sounds:
            sound.close()

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        """As `Sound.read`."""
        mono, lost = np.zeros(length, np.float32), 0
        for sound, begin, end in zip(self._sounds, [0, *self._ends], self._ends, strict=False):
            first, last = max(start, begin), min(start + length, end)
            if first < last:
                own_first = _scale(first - begin, self.rate_hz, sound.rate_hz)
                own_last = min(_scale(last - begin, self.rate_hz, sound.rate_hz), sound.n_frames)
                samples, own_lost = sound.read(own_first, own_last - own_first)
                samples = _resample(samples, sound.rate_hz, self.rate_hz)[: last - first]
                mono[first - start : first - start + len(samples)] = samples
                lost += _scale(own_lost, sound.rate_hz, self.rate_hz)
        return mono, lost


def _join(pieces: list[tuple[int, np.ndarray]], start: int, end: int) -> tuple[np.ndarray, list[_Gap], int]:
    """The samples from `start` to `end` of pieces at their positions, the gaps in them, and where the last one ends."""
    if len(pieces) == 1:
        ((at, mono),) = pieces
        if at <= start and at + len(mono) >= end:  # no copy where nothing is missing
            return mono[start - at : end - at], [], end
    gaps: list[_Gap] = []
    samples, filled = np.zeros(end - start, np.float32), start
    for at, mono in pieces:
        first, last = max(at, start), min(at + len(mono), end)
        if first < last:
            samples[first - start : last - start] = mono[first - at : last - at]
            if first > filled:
                gaps.append(_Gap(filled, first))
            filled = max(filled, last)
    return samples, gaps, filled


def _scale(count: int, rate_hz: int, to_rate_hz: int) -> int:
    return count if rate_hz == to_rate_hz else round(count * to_rate_hz / rate_hz)


def _resample(samples: np.ndarray, rate_hz: int, to_rate_hz: int) -> np.ndarray:
    if rate_hz == to_rate_hz or not len(samples):
        return samples
    return soxr.resample(samples, rate_hz, to_rate_hz, "HQ")
