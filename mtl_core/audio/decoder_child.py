"""The child process of `decoder_process.Decoder`: it decodes one recording after another, until its parent hangs up.

It runs as `python -m mtl_core.audio.decoder_child SOCKET_FD PARENT_PID MEMORY_LIMIT_BYTES`, and must start fast, in
0.2 s. A deployment with formats of its own runs a module that calls `serve` with its own reader.

The protocol, JSON in packets of a socket:

    child:  {}                        it is ready
    parent: {"size": null}, fd        decode this file; or {"size": N}: a file of N bytes that the parent reads
    child:  {"read": [offset, size]}  the bytes of such a file; the parent answers with b"+" and the bytes
    child:  {"lengths": [samples of each excerpt], "starts_s": [...], "duration_s": ...}, fd of all samples in float32
            or {"error": [stage, error, message]}
"""

import ctypes
import io
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from mtl_core.audio.decode import Recording, read_recording
from mtl_core.errors import TrackError

MESSAGE_BYTES = 1 << 16  # the largest packet of JSON
_READ_BYTES = 1 << 17  # of one request to the parent; must be below the socket's buffer of about 200 KiB
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that this process gets when its parent ends


def serve(read: Callable[[BinaryIO], Recording] = read_recording) -> None:
    """Decode recordings by `read`, which may raise TrackError, until the parent closes the connection."""
    socket_fd, parent_pid, memory_limit_bytes = map(int, sys.argv[1:4])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent ended before the line above
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=socket_fd) as connection:
        connection.send(b"{}")
        while True:
            message, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1)
            if not message:
                return
            os.ftruncate(sys.stderr.fileno(), 0)  # drop the decoders' warnings about earlier files
            os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)
            _answer(connection, read, fds, json.loads(message)["size"])


def _answer(connection: socket.socket, read: Callable[[BinaryIO], Recording], fds: list[int], size: int | None) -> None:
    """Decode the file of a request, whose parameters are `fds` and `size`, and send the result."""
    samples_fds: list[int] = []
    try:
        raw = io.FileIO(fds[0]) if size is None else _ParentFile(connection, size)
        with io.BufferedReader(raw, _READ_BYTES) as file:
            file.seek(0)  # a received descriptor keeps the position that it had in the parent
            recording = read(file)
        samples_fds.append(os.memfd_create("samples"))
        with open(samples_fds[0], "wb", closefd=False) as samples:
            for excerpt in recording.excerpts:
                samples.write(excerpt.samples.data)
        answer: dict[str, Any] = {
            "lengths": [len(excerpt.samples) for excerpt in recording.excerpts],
            "starts_s": [excerpt.start_s for excerpt in recording.excerpts],
            "duration_s": recording.duration_s,
        }
    except TrackError as error:
        answer = {"error": [error.stage, error.error, error.message[:1000]]}
    except MemoryError as error:
        answer = {"error": ["decode", "out_of_memory", str(error)[:1000] or "out of memory"]}
    except OSError as error:  # a local disk or a mount fails
        answer = {"error": ["fetch", "unavailable", str(error)[:1000]]}
    socket.send_fds(connection, [json.dumps(answer).encode()], samples_fds)
    for fd in samples_fds:
        os.close(fd)


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
        size = min(len(buffer), _READ_BYTES, self._size - self._position)
        if size <= 0:
            return 0
        self._connection.send(json.dumps({"read": [self._position, size]}).encode())
        data = self._connection.recv(_READ_BYTES + 1)[1:]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


if __name__ == "__main__":
    serve()
