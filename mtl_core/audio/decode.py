"""Decode: a seekable sound file -> mono float32 excerpts at 16 kHz, as the network's paper takes them.

A recording under 120 s is one excerpt. A longer one has two excerpts of 60 s, around its first and third quarter. Only
these are decoded, block by block: a three-hour file costs what a three-minute file does. Positions are in frames of the
file's own rate, by integer arithmetic. Each excerpt is resampled on its own, as librosa does it: the mean of the
channels, then soxr HQ.

Samples are in [-1, 1] for integer formats; a float file may hold any value, also NaN. Only numpy, soundfile and soxr
are imported, because this runs in a child process that must start fast (`decoder_child.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from mtl_core.errors import TrackError

SAMPLE_RATE_HZ = 16_000
EXCERPT_S = 60
WHOLE_BELOW_S = 120
SHORTEST_PER_S = 10  # the shortest recording is 1 / 10 s
#: The rates of real recordings. A header with another rate is damaged; resampling from it would cost gigabytes.
SAMPLE_RATES_HZ = (1_000, 768_000)

_BLOCK_SAMPLES = 1 << 18  # all channels together: 1 MiB of float32
_UNKNOWN_LENGTH = 2**63 - 1  # SF_COUNT_MAX
# An mp3 frame may use up to 511 bytes before it. At low bit rates these are up to 20 frames of 576 samples, more than
# mpg123 decodes before the target of a seek: the first samples were off by up to 0.8, with this lead by 1.2e-7.
_MP3_LEAD_FRAMES = 16_384
_UNSUPPORTED_CODES = {4, 18, 71, 92, 106, 110, 117, 123}  # libsndfile knows the container, but not its codec
_MALLOC_CODE = 17
_WAV_FORMAT_CODE = 64  # an unknown codec, or a damaged header of a known one

# (offset, bytes) of the formats that libsndfile decodes, and of formats of audio or video that it does not.
_SUPPORTED = [
    *[(8, form) for form in (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")],
    *[(0, magic) for magic in (b"ID3", b"fLaC", b"OggS", b"caff", b".snd", b"dns.", b"riff", b"NIST_1A")],
    *[(0, magic) for magic in (b"Creative Voice File", b"PVF1", b" paf", b"fap ")],
]
_UNSUPPORTED = [
    *[(4, b"ftyp"), (4, b"moov"), (8, b"AVI "), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x1a\x45\xdf\xa3")],
    *[(0, magic) for magic in (b"MAC ", b"wvpk", b"DSD ", b"FRM8", b"TTA1", b"TTA2", b"MPCK", b"MP+", b"OFR ")],
    *[(0, magic) for magic in (b"ADIF", b"#!AMR", b".RMF", b".ra\xfd", b"FLV\x01", b"tBaK", b"LA0", b"\x0b\x77")],
]


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A stretch of a recording."""

    samples: np.ndarray  # (N,) float32, mono, at SAMPLE_RATE_HZ
    start_s: float  # from the recording's start to the first sample


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The excerpts of a recording, in order, and its whole length in seconds."""

    excerpts: tuple[Excerpt, ...]
    duration_s: float


def excerpt_frames(n_frames: int, rate_hz: int) -> list[tuple[int, int]]:
    """The excerpts of a recording as (first frame, number of frames), in frames of its own rate."""
    if n_frames < WHOLE_BELOW_S * rate_hz:
        return [(0, n_frames)]
    length = EXCERPT_S * rate_hz
    return [(min(max(quarter * n_frames // 4 - length // 2, 0), n_frames - length), length) for quarter in (1, 3)]


def resample(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Samples (N,) float32 at `rate_hz` -> (ceil(N 16000 / rate_hz),) float32 at 16 kHz, by soxr HQ.

    The result is cut or zero-padded to that length, as by `librosa.resample`.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    n_samples = -(-len(samples) * SAMPLE_RATE_HZ // rate_hz)
    resampled = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, "HQ")[:n_samples]
    return np.pad(resampled, (0, n_samples - len(resampled)))


def read_recording(file: BinaryIO) -> Recording:
    """The excerpts of a sound file.

    The length in a header may be wrong. If decoding ends before the planned excerpts do, they are planned again from
    the length that was decoded, so that a truncated file counts as a shorter recording. The file must be seekable; it
    is not closed, and its position afterwards is undefined.

    Raises:
        TrackError: stage decode: `not_audio` (no known signature), `unsupported` (a known container or codec that
            libsndfile does not decode), `corrupt` (nothing can be decoded), `too_short` (under 0.1 s),
            `out_of_memory`.
        BaseException: what reading the file raised.
    """
    source = _Source(file)
    try:
        return _decode(source)
    except MemoryError as error:
        raise TrackError("decode", "out_of_memory", str(error) or "out of memory") from error
    finally:
        if source.error is not None:  # all other errors follow from this one
            raise source.error


class _Source:
    """A file for libsndfile's callbacks: reads are complete, and the exception of a read is stored.

    An exception cannot pass through C: it would be printed, and the recording would seem to end there.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        try:
            while self.error is None and size > 0 and (part := self.file.read(size)):
                parts.append(part)
                size -= len(part)
        except BaseException as error:  # noqa: BLE001  raised again by read_recording
            self.error = error
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except BaseException as error:  # noqa: BLE001  raised again by read_recording
            self.error = error
            return -1

    def tell(self) -> int:
        return self.seek(0, 1)


class _SoundFile(soundfile.SoundFile):
    """A SoundFile that does not seek after each read to where it already is.

    That seek makes mp3 decode frames twice; after damaged data it fails and loses the position.
    """

    def seekable(self) -> bool:
        return False


def _decode(source: _Source) -> Recording:
    _check_signature(source)
    with _open(source) as sound:
        rate_hz, n_claimed = sound.samplerate, sound.frames
    low, high = SAMPLE_RATES_HZ
    if not low <= rate_hz <= high:
        raise TrackError("decode", "corrupt", f"the header claims {rate_hz} Hz, allowed are {low} to {high}")
    n, seek = n_claimed, n_claimed != _UNKNOWN_LENGTH
    for _ in range(3):  # with the claimed length, with the length at which decoding ended, with the counted length
        if not seek:
            with _open(source) as sound:
                n = sum(len(block) for block in _blocks(sound, _UNKNOWN_LENGTH))
        if n == 0 < n_claimed:
            raise TrackError("decode", "corrupt", f"the header claims {n_claimed} frames, none can be decoded")
        if n * SHORTEST_PER_S < rate_hz:
            raise TrackError("decode", "too_short", f"{n / rate_hz:.3f} s: {1 / SHORTEST_PER_S} s or more is needed")
        excerpts, n_decoded = _decode_excerpts(source, n, seek)
        if excerpts:
            return Recording(excerpts=excerpts, duration_s=n_decoded / rate_hz)
        seek = n == n_claimed and n_decoded > 0
        n = n_decoded
    raise TrackError("decode", "corrupt", f"decodes to {n_claimed}, then to {n} frames or fewer")


def _decode_excerpts(source: _Source, n_frames: int, seek: bool) -> tuple[tuple[Excerpt, ...], int]:
    """The excerpts of a recording of n frames, and n; or no excerpts, and where decoding ended (0: unknown).

    Without `seek`, everything before an excerpt is decoded.
    """
    excerpts = []
    with _open(source) as sound:
        rate_hz = sound.samplerate
        for start, length in excerpt_frames(n_frames, rate_hz):
            samples = _read_mono(sound, start, length, seek)
            if len(samples) < length:
                n_frames = start + len(samples) if len(samples) else 0
                if start > 0 or n_frames * SHORTEST_PER_S < rate_hz:
                    return (), n_frames
            excerpts.append(Excerpt(samples=resample(samples, rate_hz), start_s=start / rate_hz))
            if len(samples) < length:  # it is the whole recording, which is shorter than claimed
                break
    return tuple(excerpts), n_frames


def _read_mono(sound: soundfile.SoundFile, start: int, length: int, seek: bool) -> np.ndarray:
    """The mean of the channels (N,) float32 from frame `start` on: `length` frames, fewer where decoding ends."""
    if seek:
        target = max(0, start - _MP3_LEAD_FRAMES) if sound.format == "MP3" else start
        try:
            if sound.seek(target) != target:
                return np.empty(0, np.float32)
        except soundfile.LibsndfileError:
            return np.empty(0, np.float32)
    for _ in _blocks(sound, start - sound.tell()):
        pass
    weights = np.full(sound.channels, 1 / sound.channels, np.float32)
    samples, n = np.empty(length, np.float32), 0
    for block in _blocks(sound, length):
        np.dot(block, weights, out=samples[n : n + len(block)])
        n += len(block)
    return samples[:n]


def _blocks(sound: soundfile.SoundFile, n_frames: int) -> Iterator[np.ndarray]:
    """The next n frames, fewer where decoding ends, in blocks (frames, channels) float32, each valid until the next."""
    buffer = np.empty((max(1, _BLOCK_SAMPLES // sound.channels), sound.channels), np.float32)
    position = sound.tell()
    while n_frames > 0:
        try:
            n_read = len(sound.read(min(n_frames, len(buffer)), out=buffer))
        except soundfile.LibsndfileError as error:
            if error.code == _MALLOC_CODE:
                raise MemoryError(error.error_string) from error
            n_read, n_frames = max(sound.tell() - position, 0), 0  # the frames before the damage are good
        if n_read == 0:
            return
        position += n_read
        yield buffer[:n_read]
        n_frames -= n_read


@contextmanager
def _open(source: _Source) -> Iterator[soundfile.SoundFile]:
    source.seek(0)
    try:
        sound = _SoundFile(source)
    except soundfile.LibsndfileError as error:
        source.seek(0)
        head = source.read(36)
        if error.code == _MALLOC_CODE:
            raise MemoryError(error.error_string) from error
        unsupported = error.code in _UNSUPPORTED_CODES and not head.startswith(b"fLaC")
        if error.code == _WAV_FORMAT_CODE:
            unsupported = head[12:16] == b"fmt " and head[20:22] not in (b"\0\0", b"\1\0", b"\3\0")
        name = "unsupported" if unsupported else "corrupt"
        raise TrackError("decode", name, f"libsndfile: {error.error_string}") from error
    with sound:
        yield sound


def _check_signature(source: _Source) -> None:
    """Raise TrackError if the first bytes, after an ID3 tag, are not those of a format that libsndfile decodes.

    libsndfile is not asked, because its answer may depend on a file's extension.
    """
    source.seek(0)
    head = first = source.read(36)
    if head.startswith(b"ID3") and len(head) > 9:
        tag_bytes = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        source.seek(10 + tag_bytes)
        head = source.read(36)
    adts = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0
    if adts or any(head.startswith(magic, at) for at, magic in _UNSUPPORTED):
        raise TrackError("decode", "unsupported", f"begins with {head[:16]!r}: this format is not supported")
    mpeg = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0
    if not mpeg and not any(data.startswith(magic, at) for data in (head, first) for at, magic in _SUPPORTED):
        raise TrackError("decode", "not_audio", f"begins with {head[:16]!r}: no known audio format")
