"""Decode: a seekable sound file -> mono float32 samples at 16 kHz, of the stretches that are asked for.

Only these are decoded: a three-hour file costs what a three-minute file does. A stretch is resampled in one of two
ways, by soxr HQ:

* an **excerpt** on its own, as librosa does it. Its place is in frames of the file's own rate.
* a **segment** as a part of the whole resampled recording, from which it differs by less than 1e-6. Its place is in
  samples at 16 kHz. It is decoded with a margin, so that the resampler sees what lies around it.

Only numpy, PyAV and soxr are imported, because this runs in a child process that must start fast (`decoder_child.py`).
"""

import contextlib
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import av
import av.subtitles.codeccontext  # PyAV imports it at first use, when the sandbox opens no files
import numpy as np
import soxr

from mtl_core.audio.decoding.byte_view import ByteView
from mtl_core.audio.decoding.containers import Part, find_parts, find_sound, has_signature
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.decoding.reach import SAMPLE_RATE_HZ, grid_frames, margin_frames
from mtl_core.audio.decoding.sound_file import JoinedSound, LostSound, Sound, StreamSound
from mtl_core.errors import TrackError

SHORTEST_PER_S = 10  # the shortest recording is 1 / 10 s
MAX_PARTS = 2_000  # of a file that was joined, such as a day of radio

_JOINED_GAP = 6_400  # samples at 16 kHz: segments that are closer are decoded in one go, because a seek costs as much
_JOINED_MAX = 60 * SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A stretch of a recording."""

    samples: np.ndarray  # (N,) float32, mono, at SAMPLE_RATE_HZ
    start_s: float  # from the recording's start to the first sample


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Some stretches of a recording."""

    excerpts: tuple[Excerpt, ...]
    duration_s: float  # of the whole recording
    lost_s: float = 0.0  # of the excerpts: damage that was passed over, and is silent in them


@dataclass(frozen=True, kw_only=True)
class Stretches:
    """What is to be decoded of a recording: excerpts or segments, as (start, length), each of 1 or more."""

    places: Sequence[tuple[int, int]]
    are_excerpts: bool  # places are in frames of the file; else they are segments, in samples at 16 kHz

    def in_seconds(self, rate_hz: int) -> list[tuple[float, float]]:
        """Where they start and end in a file of this rate."""
        per_s = rate_hz if self.are_excerpts else SAMPLE_RATE_HZ
        return [(start / per_s, (start + length) / per_s) for start, length in self.places]


def resample(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Samples (N,) float32 at `rate_hz` -> (ceil(N 16000 / rate_hz),) float32 at 16 kHz, by soxr HQ.

    The result is cut or zero-padded to that length, as by `librosa.resample`.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    n_samples = resampled_length(len(samples), rate_hz)
    resampled = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, "HQ")[:n_samples]
    return np.pad(resampled, (0, n_samples - len(resampled)))


def resampled_length(n_frames: int, rate_hz: int) -> int:
    """The number of samples at 16 kHz of `n_frames` at `rate_hz`."""
    return -(-n_frames * SAMPLE_RATE_HZ // rate_hz)


def open_sound(file: BinaryIO, limits: SoundLimits | None = None) -> Sound:
    """Open a sound file of any format that ffmpeg decodes, known by its content. Close the result.

    The file must be seekable; it is not closed, and its position afterwards is undefined.

    Raises:
        TrackError: stage decode: `not_audio` (no known signature, or no sound), `unsupported` (no decoder for it),
            `corrupt` (nothing can be decoded), `too_short` (under 0.1 s), `too_large` (beyond the limits),
            `out_of_memory`.
        BaseException: what reading the file raised.
    """
    limits, view = limits or SoundLimits(), ByteView(file)
    try:
        sound = _open(view, limits)
    except MemoryError as error:
        raise TrackError("decode", "out_of_memory", str(error) or "out of memory") from error
    if sound.n_frames * SHORTEST_PER_S < sound.rate_hz:
        sound.close()
        message = f"{sound.n_frames / sound.rate_hz:.3f} s: {1 / SHORTEST_PER_S} s or more is needed"
        raise TrackError("decode", "too_short", message)
    return sound


def read_stretches(sound: Sound, stretches: Stretches) -> Recording:
    """Decode stretches of a recording, in their order. Those of segments are read by ascending place."""
    rate_hz, lost = sound.rate_hz, 0
    excerpts: dict[int, Excerpt] = {}
    if stretches.are_excerpts:
        for index, (start, length) in enumerate(stretches.places):
            samples, lost_here = sound.read(start, length)
            excerpts[index] = Excerpt(samples=resample(samples, rate_hz), start_s=start / rate_hz)
            lost += lost_here
    else:
        order = sorted(range(len(stretches.places)), key=lambda index: stretches.places[index])
        indices = iter(order)
        for group in _neighbours([stretches.places[index] for index in order]):
            samples, lost_here = _read_resampled(sound, group[0][0], group[-1][0] + group[-1][1])
            for start, length in group:
                part = samples[start - group[0][0] :][:length]
                excerpts[next(indices)] = Excerpt(samples=part, start_s=start / SAMPLE_RATE_HZ)
            lost += lost_here
    in_order = tuple(excerpts[index] for index in range(len(excerpts)))
    return Recording(excerpts=in_order, duration_s=sound.n_frames / rate_hz, lost_s=lost / rate_hz)


def _neighbours(places: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Places in groups that are decoded in one go."""
    groups: list[list[tuple[int, int]]] = []
    for start, length in places:
        last = groups[-1] if groups else []
        gap = start - sum(last[-1]) if last else 0
        if last and 0 <= gap <= _JOINED_GAP and start + length - last[0][0] <= _JOINED_MAX:
            last.append((start, length))
        else:
            groups.append([(start, length)])
    return groups


def _read_resampled(sound: Sound, start: int, end: int) -> tuple[np.ndarray, int]:
    """Samples `start` to `end` of the whole resampled recording, and how many of its frames are lost."""
    rate_hz = sound.rate_hz
    margin, step = margin_frames(rate_hz), grid_frames(rate_hz)
    first = max(0, (start * rate_hz // SAMPLE_RATE_HZ - margin) // step * step)
    last = min(sound.n_frames, -(-end * rate_hz // SAMPLE_RATE_HZ) + margin)
    frames, lost = sound.read(first, last - first)
    offset = start - first * SAMPLE_RATE_HZ // rate_hz
    asked = (end - start) * rate_hz // SAMPLE_RATE_HZ  # without the margins
    return resample(frames, rate_hz)[offset : offset + end - start], min(lost, asked)


def _open(view: ByteView, limits: SoundLimits) -> Sound:
    try:
        return _open_parts(find_parts(view), limits)
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        failure = _as_track_error(error, view)
    parts = [] if failure.error == "unsupported" else find_sound(view)
    if not parts:
        raise failure
    try:
        return _open_parts(parts, limits)
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        raise _as_track_error(error, view) from error


def _open_parts(parts: list[Part], limits: SoundLimits) -> Sound:
    if len(parts) == 1:
        return StreamSound(parts[0], limits)
    if len(parts) > MAX_PARTS:
        raise TrackError("decode", "too_large", f"{len(parts)} joined files: allowed are up to {MAX_PARTS}")
    opened: list[tuple[StreamSound | None, int]] = []  # and the bytes of the part; None: it is damaged
    for part in parts:
        sound = None
        try:
            sound = StreamSound(part, limits, keep=False)
        except MemoryError:
            raise
        except (TrackError, av.error.FFmpegError) as error:  # one of many
            failure = error.error if isinstance(error, TrackError) else "corrupt"
            if failure == "too_large" or (part is parts[-1] and not any(sound for sound, _ in opened)):
                raise
            if failure == "too_short":
                continue
        opened.append((sound, len(part.view)))
    joined = JoinedSound(_with_lost(opened))
    limits.check(rate_hz=joined.rate_hz, n_channels=1, n_frames=joined.n_frames)
    return joined


def _with_lost(opened: list[tuple[StreamSound | None, int]]) -> list[Sound]:
    """The sounds of parts. One that is damaged (None) is lost, with the length that its bytes let expect."""
    sounds = [(sound, n_bytes) for sound, n_bytes in opened if sound is not None]
    rate_hz = sounds[0][0].rate_hz
    n_frames = sum(sound.n_frames * rate_hz / sound.rate_hz for sound, _ in sounds)
    frames_per_byte = n_frames / sum(n_bytes for _, n_bytes in sounds)
    return [sound or LostSound(rate_hz, round(n_bytes * frames_per_byte)) for sound, n_bytes in opened]


def _as_track_error(error: av.error.FFmpegError, view: ByteView) -> TrackError:
    """The failure of a file that ffmpeg did not open."""
    head = view.read_at(0, 36)
    message = f"ffmpeg: {error.strerror}; the file begins with {head[:16]!r}"
    if isinstance(error, av.error.PatchWelcomeError | av.error.DecoderNotFoundError):
        return TrackError("decode", "unsupported", message)
    return TrackError("decode", "corrupt" if has_signature(head) else "not_audio", message)


def warm_up() -> None:
    """Decode a tiny file and fail with another, so that all that is loaded at first use is loaded."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(bytes(16_000))
    sound = open_sound(file)
    read_stretches(sound, Stretches(places=[(0, 16_000)], are_excerpts=False))
    sound.close()
    with contextlib.suppress(TrackError):
        open_sound(io.BytesIO(b"not audio"))
