"""Decoder protocol: the messages between `decoder_process.Decoder` and its child, and the checks of the child's.

JSON in packets of a socket:

    child:  {"sandbox": null}         it is ready; or {"sandbox": "why the platform does not allow it"}
    parent: {"open": null}, fd        open this file; or {"open": N}: a file of N bytes that the parent reads
    child:  {"read": [offset, size]}  the bytes of such a file; the parent answers with b"+" and the bytes
    child:  {"rate_hz": ..., "n_frames": ...}
    parent: {"places": [[start, length], ...], "are_excerpts": ...}  decode these stretches of the open file, PLACES at
                                                                     most; as often as it likes
    child:  {"lengths": [samples of each stretch], "starts_s": [...], "duration_s": ..., "lost_s": ...}, fd of all
            samples in float32, a memory file with SEALS
    child:  {"error": [stage, error, message]}                       instead of an answer

A file may take over the child, so the parent checks each message. A wrong one is the error `crashed` of the track.
"""

import fcntl
import json
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_core.audio.decoding.decode import Excerpt, Recording, Stretches, resampled_length
from mtl_core.errors import ERRORS, TrackError

MESSAGE_BYTES = 1 << 16  # the largest packet of JSON
READ_BYTES = 1 << 17  # of one request to the parent; must be below the socket's buffer of about 200 KiB
PLACES = 1_024  # of one request: they, and the answer's lists, take at most 43 KiB of JSON
#: Of the samples: else the child could shorten the file, and the parent would end when it reads the mapped samples.
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_MOST = 1 << 53  # of any number in a message; up to it floats are exact
_TEXT_LENGTH = 1_000


def batches(stretches: Stretches) -> list[Stretches]:
    """The same stretches in parts of `PLACES`: one request each, and one memory file of their samples."""
    places, are_excerpts = stretches.places, stretches.are_excerpts
    return [Stretches(places=places[i : i + PLACES], are_excerpts=are_excerpts) for i in range(0, len(places), PLACES)]


def joined(parts: Sequence[Recording]) -> Recording:
    """The recording whose stretches are those of all parts, in their order."""
    excerpts = tuple(excerpt for part in parts for excerpt in part.excerpts)
    return Recording(excerpts=excerpts, duration_s=parts[0].duration_s, lost_s=sum(part.lost_s for part in parts))


class ChildMessage:
    """A message of the child. A method for each kind checks it, and returns what it says.

    Raises:
        TrackError: decode/crashed, also by all methods: the message is not of that kind, or a value is wrong.
    """

    def __init__(self, packet: bytes, fds: Sequence[int] = (), flags: int = 0) -> None:
        self._packet = packet
        self._fd = fds[0] if fds else None  # closed where the message is wrong, and when its samples are mapped
        try:
            self._values: Any = json.loads(packet)
        except (ValueError, RecursionError) as error:
            raise self._wrong() from error
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not isinstance(self._values, dict):
            raise self._wrong()

    def ready(self) -> str | None:
        """Of a child that is ready: why it is not in a sandbox, or None."""
        refused = self._values.get("sandbox", 0)
        self._check(refused is None or isinstance(refused, str))
        return refused

    def read_request(self, file_bytes: int) -> tuple[int, int] | None:
        """(offset, size) of what the child asks for of a file of `file_bytes`; None if it does not ask."""
        if "read" not in self._values:
            return None
        request = self._values["read"]
        self._check(isinstance(request, list) and len(request) == 2)
        offset, size = request
        self._check(_is_whole(offset, 0, _MOST) and _is_whole(size, 1, READ_BYTES) and offset + size <= file_bytes)
        return offset, size

    def error(self) -> TrackError | None:
        """The failure of the track, or None."""
        if "error" not in self._values:
            return None
        failure = self._values["error"]
        self._check(isinstance(failure, list) and len(failure) == 3 and all(isinstance(word, str) for word in failure))
        stage, error, text = failure
        self._check(error in ERRORS.get(stage, {}))
        return TrackError(stage, error, text[:_TEXT_LENGTH].encode(errors="replace").decode())  # no lone surrogates

    def opened(self) -> tuple[int, int]:
        """The rate in Hz and the length in frames of the file that was opened, each 1 or more."""
        rate_hz, n_frames = self._values.get("rate_hz"), self._values.get("n_frames")
        self._check(_is_whole(rate_hz, 1, _MOST) and _is_whole(n_frames, 1, _MOST))
        return rate_hz, n_frames

    def recording(self, stretches: Stretches, rate_hz: int) -> Recording:
        """The stretches that were asked for, each of 1 sample or more and none too long; mapped, and read-only."""
        longest = [length for _, length in stretches.places]
        if stretches.are_excerpts:
            longest = [resampled_length(length, rate_hz) for length in longest]
        lengths, starts_s = self._values.get("lengths"), self._values.get("starts_s")
        duration_s, lost_s = self._values.get("duration_s"), self._values.get("lost_s")
        self._check(isinstance(lengths, list) and len(lengths) == len(longest), may_have_fd=True)
        self._check(isinstance(starts_s, list) and len(starts_s) == len(longest), may_have_fd=True)
        are_lengths = all(_is_whole(length, 1, most) for length, most in zip(lengths, longest, strict=True))
        self._check(are_lengths and all(map(_is_number, [*starts_s, duration_s, lost_s])), may_have_fd=True)
        samples = np.split(self._map_samples(sum(lengths)), np.cumsum(lengths)[:-1])
        parts = zip(samples, starts_s, strict=True)
        excerpts = tuple(Excerpt(samples=part, start_s=start_s) for part, start_s in parts)
        return Recording(excerpts=excerpts, duration_s=duration_s, lost_s=lost_s)

    def _map_samples(self, n_samples: int) -> np.ndarray:
        if self._fd is None:
            raise self._wrong()
        n_bytes = n_samples * np.dtype(np.float32).itemsize
        try:
            seals = fcntl.fcntl(self._fd, fcntl.F_GET_SEALS)
        except OSError as error:  # it is no memory file
            raise self._wrong() from error
        self._check(seals & SEALS == SEALS and os.fstat(self._fd).st_size == n_bytes, may_have_fd=True)
        try:  # private: before Linux 6.7 a file sealed against writing cannot be mapped as shared
            mapped = mmap.mmap(self._fd, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ)
        finally:
            self._close()
        return np.frombuffer(mapped, np.float32)

    def _check(self, is_right: bool, *, may_have_fd: bool = False) -> None:
        if not is_right or (self._fd is not None and not may_have_fd):
            raise self._wrong()

    def _wrong(self) -> TrackError:
        self._close()
        return TrackError("decode", "crashed", f"the decoder sent a wrong message: {self._packet[:100]!r}")

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most  # type: a bool is an int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _MOST  # false for NaN
