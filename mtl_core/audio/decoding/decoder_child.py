"""The child process of `decoder_process.Decoder`: it decodes one recording after another, until its parent hangs up.

It runs as `python -m mtl_core.audio.decoding.decoder_child SOCKET_FD PARENT_PID LIMITS`, LIMITS in JSON, and must start
fast, in 0.3 s. It has none of its parent's credentials, and once it has warmed up it enters the `sandbox`: it can read
and write what it was given, and no more. A deployment with formats of its own runs a module that calls `serve` with a
function of its own; that module imports all it needs before.

`decoder_protocol` describes the messages.
"""

import ctypes
import fcntl
import io
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from mtl_core.audio.decoding.decode import Stretches, open_sound, read_stretches, warm_up
from mtl_core.audio.decoding.decoder_protocol import MESSAGE_BYTES, READ_BYTES, SEALS
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.decoding.sandbox import enter_sandbox
from mtl_core.audio.decoding.sound_file import Sound
from mtl_core.errors import TrackError

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that this process gets when its parent ends
_MAX_FILES = 64  # open descriptors

OpenSound = Callable[[BinaryIO, SoundLimits], Sound]


def serve(open_file: OpenSound = open_sound, *, sandbox: bool = True) -> None:
    """Decode recordings that `open_file` opens, which may raise TrackError, until the parent closes the connection.

    A module that opens files or starts threads while it decodes says `sandbox=False`.
    """
    socket_fd, parent_pid, limits = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent ended before the line above
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory_limit_bytes, growth_bytes = limits.pop("memory_limit_bytes"), limits.pop("growth_bytes")
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_limit_bytes, memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_FILES, _MAX_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warm_up()
    if growth_bytes is not None:
        now_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        own_limit_bytes = min(now_bytes + growth_bytes, memory_limit_bytes)
        resource.setrlimit(resource.RLIMIT_AS, (own_limit_bytes, own_limit_bytes))
    refused = None
    try:
        if sandbox:
            enter_sandbox()
    except OSError as error:
        refused = error.strerror
    with socket.socket(fileno=socket_fd) as connection:
        connection.send(json.dumps({"sandbox": refused}).encode())
        _Server(connection, open_file, SoundLimits(**limits)).run()


class _Server:
    """Answers the parent's requests; holds the sound that is open."""

    def __init__(self, connection: socket.socket, open_file: OpenSound, limits: SoundLimits) -> None:
        self._connection, self._open_file, self._limits = connection, open_file, limits
        self._sound: Sound | None = None
        self._file: BinaryIO | None = None

    def run(self) -> None:
        while True:
            message, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, 1)
            if not message:
                return
            samples_fds: list[int] = []
            answer = self._answer(json.loads(message), fds, samples_fds)
            socket.send_fds(self._connection, [json.dumps(answer).encode()], samples_fds)
            for fd in samples_fds:
                os.close(fd)

    def _answer(self, request: dict[str, Any], fds: list[int], samples_fds: list[int]) -> dict[str, Any]:
        """The answer to a request; the descriptor of samples is added to `samples_fds`."""
        try:
            if "open" in request:
                return self._open(request["open"], fds)
            return self._read(Stretches(**request), samples_fds)
        except TrackError as error:
            failure = error
        except MemoryError as error:
            failure = TrackError("decode", "out_of_memory", str(error) or "out of memory")
        except av.error.FFmpegError as error:  # before OSError, which some of them are too
            failure = TrackError("decode", "corrupt", f"ffmpeg: {error.strerror}")
        except OSError as error:  # a local disk or a mount fails
            failure = TrackError("fetch", "unavailable", str(error))
        except Exception as error:  # noqa: BLE001  a decoder's fault with this file: the next one is decoded all the same
            failure = TrackError("decode", "corrupt", f"{type(error).__name__}: {error}")
        return {"error": [failure.stage, failure.error, failure.message[:1000]]}

    def _open(self, size: int | None, fds: list[int]) -> dict[str, Any]:
        self._close()
        os.ftruncate(sys.stderr.fileno(), 0)  # drop the decoders' warnings about earlier files
        os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)
        raw = io.FileIO(fds[0]) if size is None else _ParentFile(self._connection, size)
        self._file = io.BufferedReader(raw, READ_BYTES)
        self._file.seek(0)  # a received descriptor keeps the position that it had in the parent
        self._sound = self._open_file(self._file, self._limits)
        return {"rate_hz": self._sound.rate_hz, "n_frames": self._sound.n_frames}

    def _read(self, stretches: Stretches, samples_fds: list[int]) -> dict[str, Any]:
        assert self._sound is not None, "the parent reads what it has opened"
        recording = read_stretches(self._sound, stretches)
        samples_fds.append(os.memfd_create("samples", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        with open(samples_fds[0], "wb", closefd=False) as samples:
            for excerpt in recording.excerpts:
                samples.write(np.ascontiguousarray(excerpt.samples).data)
        fcntl.fcntl(samples_fds[0], fcntl.F_ADD_SEALS, SEALS)
        return {
            "lengths": [len(excerpt.samples) for excerpt in recording.excerpts],
            "starts_s": [excerpt.start_s for excerpt in recording.excerpts],
            "duration_s": recording.duration_s,
            "lost_s": recording.lost_s,
        }

    def _close(self) -> None:
        if self._sound is not None:
            self._sound.close()
        if self._file is not None:
            self._file.close()
        self._sound = self._file = None


class _ParentFile(io.RawIOBase):
    """A file of `size` bytes that the parent reads for this process."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._connection, self._size, self._position = connection, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), READ_BYTES, self._size - self._position)
        if size <= 0:
            return 0
        self._connection.send(json.dumps({"read": [self._position, size]}).encode())
        data = self._connection.recv(READ_BYTES + 1)[1:]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


if __name__ == "__main__":
    serve()
