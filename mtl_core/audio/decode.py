"""Recording: a seekable binary file -> mono float32 excerpts at 16 kHz, as the network's paper has them.

Under 120 s the one excerpt is the whole recording; otherwise two of 60 s around its first and third quarter. Only these
are decoded, block by block, so that a three-hour file costs what a three-minute one does. Positions are in native
frames, by integer arithmetic; each excerpt is resampled on its own, as librosa does: mean of the channels, soxr HQ.

Samples are in [-1, 1] for integer formats; a float file may hold anything, NaN too. Only numpy, soundfile and soxr are
imported: this runs in a child process that must start fast (decoder_child.py).
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
#: What recordings really have. A header that claims another rate is damaged; resampling from it would cost gigabytes.
SAMPLE_RATES_HZ = (1_000, 768_000)

_BLOCK_SAMPLES = 1 << 18  # all channels together: 1 MiB of float32
_UNKNOWN_LENGTH = 2**63 - 1  # SF_COUNT_MAX
# An mp3 frame may take up to 511 bytes of its data from before it: at low bit rates that is up to 20 frames of 576,
# more than mpg123 decodes ahead of a seek's target; the first samples were off by up to 0.8, and with this by 1.2e-7.
_MP3_LEAD_FRAMES = 16_384
_UNSUPPORTED_CODES = {4, 18, 71, 92, 106, 110, 117, 123}  # libsndfile: the container is known, the codec in it is not
_MALLOC_CODE = 17
_WAV_FORMAT_CODE = 64  # an unknown codec, or a damaged description of a known one

# (offset, bytes) of what libsndfile decodes, and of audio (or film, which holds audio) that it does not.
_SUPPORTED = [
    *[(8, form) for form in (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")],
    *[(0, magic) for magic in (b"ID3", b"fLaC", b"OggS", b"caff", b".snd", b"dns.", b"riff", b"NIST_1A")],
    *[(0, magic) for magic in (b"Creative Voice File", b"PVF1", b" paf", b"fap ")],
]
_UNSUPPORTED = [
    *[(4, b"ftyp"), (4, b"moov"), (8, b"AVI "), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x1a\x45\xdf\xa3")],
    *[
        (0, magic)
        for magic in (b"MAC ", b"wvpk", b"DSD ", b"FRM8", b"TTA1", b"TTA2", b"MPCK", b"MP+", b"OFR ", b"ADIF")
    ],
    *[(0, magic) for magic in (b"#!AMR", b".RMF", b".ra\xfd", b"FLV\x01", b"tBaK", b"LA0", b"\x0b\x77")],
]


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A stretch of a recording.

    Args:
        samples: (N,) float32, mono, at `SAMPLE_RATE_HZ`.
        start_s: seconds from the recording's start to the first sample.
    """

    samples: np.ndarray
    start_s: float


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is heard of a track: its excerpts in order, and the length in seconds of the whole."""

    excerpts: tuple[Excerpt, ...]
    duration_s: float


def excerpt_frames(n_frames: int, rate_hz: int) -> list[tuple[int, int]]:
    """Where the excerpts of a recording lie: (first frame, number of frames) of each, in native frames."""
    if n_frames < WHOLE_BELOW_S * rate_hz:
        return [(0, n_frames)]
    length = EXCERPT_S * rate_hz
    return [(min(max(quarter * n_frames // 4 - length // 2, 0), n_frames - length), length) for quarter in (1, 3)]


def resample(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Samples (N,) float32 at `rate_hz` -> (ceil(N 16000 / rate_hz),) float32 at 16 kHz, by soxr HQ.

    Cut or zero-padded to that length, as `librosa.resample` does.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    wanted = -(-len(samples) * SAMPLE_RATE_HZ // rate_hz)
    resampled = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, "HQ")[:wanted]
    return np.pad(resampled, (0, wanted - len(resampled)))


def read_recording(file: BinaryIO) -> Recording:
    """The excerpts of a sound file.

    Headers lie about lengths: where decoding ends before the planned excerpts do, they are planned again from the
    length that was found, so that a truncated file counts as a shorter recording.

    Args:
        file: seekable, open for reading; its position on return is undefined. It is not closed.

    Raises:
        TrackError: stage decode: `not_audio` (no known signature), `unsupported` (a known container or codec that
            libsndfile does not decode), `corrupt` (nothing can be decoded), `too_short` (under 0.1 s),
            `out_of_memory`.
        BaseException: whatever reading the file raised.
    """
    source = _Source(file)
    try:
        return _recording(source)
    except MemoryError as error:
        raise TrackError("decode", "out_of_memory", str(error) or "out of memory") from error
    finally:
        if source.error is not None:  # whatever else was seen came of that
            raise source.error


class _Source:
    """The file as libsndfile's callbacks want it: reads are complete, and what they raise is kept.

    An exception cannot pass through C: it would be printed, and the track recorded as ending there.
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
    """A SoundFile that does not seek to where it already is after each read: mp3 would decode some frames again, and
    after damage that seek fails and loses the position."""

    def seekable(self) -> bool:
        return False


def _recording(source: _Source) -> Recording:
    _check_signature(source)
    with _opened(source) as sound:
        rate_hz, claimed = sound.samplerate, sound.frames
    if not SAMPLE_RATES_HZ[0] <= rate_hz <= SAMPLE_RATES_HZ[1]:
        raise TrackError("decode", "corrupt", f"the header claims {rate_hz} Hz: allowed are {SAMPLE_RATES_HZ}")
    n, seek = claimed, claimed != _UNKNOWN_LENGTH
    for _ in range(3):  # the claimed length, one found by the way, one counted
        if not seek:
            n = _count(source)
        if n == 0 < claimed:
            raise TrackError("decode", "corrupt", f"the header claims {claimed} frames, none can be decoded")
        if n * SHORTEST_PER_S < rate_hz:
            raise TrackError("decode", "too_short", f"{n / rate_hz:.3f} s: {1 / SHORTEST_PER_S} s or more is needed")
        excerpts, found = _excerpts(source, n, seek)
        if excerpts:
            return Recording(excerpts=excerpts, duration_s=found / rate_hz)
        seek = n == claimed and found > 0
        n = found
    raise TrackError("decode", "corrupt", f"decodes to {claimed}, then to {n} frames or fewer")


def _excerpts(source: _Source, n_frames: int, seek: bool) -> tuple[tuple[Excerpt, ...], int]:
    """The excerpts of a recording of n frames, and n; or none, and where decoding ended instead (0: unknown)."""
    excerpts = []
    with _opened(source) as sound:
        rate_hz = sound.samplerate
        for start, length in excerpt_frames(n_frames, rate_hz):
            samples = _read_mono(sound, start, length, seek)
            if len(samples) < length:
                n_frames = start + len(samples) if len(samples) else 0
                if start > 0 or n_frames * SHORTEST_PER_S < rate_hz:
                    return (), n_frames
            excerpts.append(Excerpt(samples=resample(samples, rate_hz), start_s=start / rate_hz))
            if len(samples) < length:  # from the start to the end: the plan for the corrected length
                break
    return tuple(excerpts), n_frames


def _read_mono(sound: soundfile.SoundFile, start: int, length: int, seek: bool) -> np.ndarray:
    """Frames start to start + length, fewer where decoding ends, as the mean of the channels (N,) float32."""
    if seek:
        before = max(0, start - _MP3_LEAD_FRAMES) if sound.format == "MP3" else start
        try:
            if sound.seek(before) != before:
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


def _count(source: _Source) -> int:
    """The frames that decoding yields from the start to its end."""
    with _opened(source) as sound:
        return sum(len(block) for block in _blocks(sound, _UNKNOWN_LENGTH))


def _blocks(sound: soundfile.SoundFile, n_frames: int) -> Iterator[np.ndarray]:
    """The next n frames, fewer where decoding ends, as (frames, channels) float32; a block is valid until the next."""
    buffer = np.empty((max(1, _BLOCK_SAMPLES // sound.channels), sound.channels), np.float32)
    position = sound.tell()
    while n_frames > 0:
        try:
            got = len(sound.read(min(n_frames, len(buffer)), out=buffer))
        except soundfile.LibsndfileError as error:
            if error.code == _MALLOC_CODE:
                raise MemoryError(error.error_string) from error
            got, n_frames = max(sound.tell() - position, 0), 0  # what came before the damage is good
        if got == 0:
            return
        position += got
        yield buffer[:got]
        n_frames -= got


@contextmanager
def _opened(source: _Source) -> Iterator[soundfile.SoundFile]:
    source.seek(0)
    try:
        sound = _SoundFile(source)
    except soundfile.LibsndfileError as error:
        source.seek(0)
        head = source.read(36)
        if error.code == _MALLOC_CODE:
            raise MemoryError(error.error_string) from error
        foreign = error.code in _UNSUPPORTED_CODES and not head.startswith(b"fLaC")
        if error.code == _WAV_FORMAT_CODE:
            foreign = head[12:16] == b"fmt " and head[20:22] not in (b"\0\0", b"\1\0", b"\3\0")
        raise TrackError(
            "decode", "unsupported" if foreign else "corrupt", f"libsndfile: {error.error_string}"
        ) from error
    with sound:
        yield sound


def _check_signature(source: _Source) -> None:
    """Raises TrackError where the first bytes, after an ID3 tag, are not those of a format that libsndfile decodes."""
    source.seek(0)
    head = first = source.read(36)
    if head.startswith(b"ID3") and len(head) > 9:
        tag_bytes = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        source.seek(10 + tag_bytes)
        head = source.read(36)
    adts = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0
    if adts or any(head.startswith(magic, at) for at, magic in _UNSUPPORTED):
        raise TrackError("decode", "unsupported", f"begins with {head[:16]!r}: a format that is not decoded here")
    mpeg = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0
    if not mpeg and not any(data.startswith(magic, at) for data in (head, first) for at, magic in _SUPPORTED):
        raise TrackError("decode", "not_audio", f"begins with {head[:16]!r}: no known audio format")
