"""Decoder: a long-lived child process in which recordings are decoded, so that a bad file costs one track.

A decoder of untrusted files can crash, hang or allocate without end. Here that ends the child; the track fails with a
reason and the next one starts another child. The parent and the child talk JSON over a socket; whole files go in, and
samples come out, as memory files (memfd) that are mapped rather than copied. A remote file stays with the parent, who
reads from it what the child asks for.

The child inherits the socket alone, and dies with its parent, however that ends.
"""

import contextlib
import ctypes
import io
import json
import mmap
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mtl_core.audio.decode import Excerpt, Recording, read_recording
from mtl_core.errors import TrackError

DECODER = "mtl_core.audio.decoder_process"
_MESSAGE_BYTES = 1 << 16
_READ_BYTES = 1 << 17  # what the child asks of the parent at once, below the socket's buffer of about 200 KiB
_START_S = 60.0  # to import numpy and libsndfile on a busy machine
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class DecoderLimits:
    """What one track may cost.

    Args:
        time_limit_s: seconds of wall clock in the child; the parent's own reading of a remote file does not count.
        memory_limit_bytes: of the child's address space; Python, numpy and libsndfile take some 110 MB of it.
    """

    time_limit_s: float = 60.0
    memory_limit_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        if not 0 < self.time_limit_s <= 86_400:
            raise ValueError(f"time_limit_s must be above 0 and at most 86400, got {self.time_limit_s}")
        if not 1 << 29 <= self.memory_limit_bytes <= 1 << 50:
            raise ValueError(
                f"memory_limit_bytes must be {1 << 29} (512 MiB) to {1 << 50}, got {self.memory_limit_bytes}"
            )


class Decoder:
    """`audio.read_recording` behind a wall. One caller at a time; close it, or use it as a context manager.

    Args:
        limits: what one track may cost.
        child: the module that is run as the child; it calls `serve`. Tests pass one that misbehaves.
    """

    def __init__(self, limits: DecoderLimits | None = None, child: str = DECODER) -> None:
        self.limits = limits or DecoderLimits()
        self._module = child
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ties a child to the thread that started it, not to the process: this one lives as long as we do.
        self._starter = ThreadPoolExecutor(1, "decoder-starter")

    def decode(self, source: bytes | str | BinaryIO) -> Recording:
        """The excerpts of a recording.

        Args:
            source: the bytes of a file, the path of a local one, or a seekable file of this process, of which only
                what decoding needs is read.

        Returns:
            The recording; its samples are read-only and lie in memory of their own.

        Raises:
            TrackError: stage decode: those of `audio.read_recording`, `crashed`, `timed_out`, `out_of_memory`; stage
                fetch: `unavailable`, a local file that cannot be read.
            OSError: the path is not that of a readable regular file.
            Exception: whatever reading the source raised.
            RuntimeError: a child does not start: this installation is broken, not the track.
        """
        if self._process is not None and self._process.poll() is not None:  # it died between tracks: no track's fault
            self._stop()
        if self._process is None:
            self._start()
        fd = _descriptor(source)
        try:
            answer, fds = self._exchange(fd, source)
        except BaseException:  # it died or hangs, or still waits for what could not be read
            self._stop()
            raise
        finally:
            if fd is not None:
                os.close(fd)
        if "error" in answer:
            error = TrackError(*answer["error"])
            if error.error == "out_of_memory":
                self._stop()
            raise error
        return _read_answer(answer, fds[0])

    def cpu_s(self) -> float:
        """CPU seconds of all the children so far: of those that ended, and of the one that lives."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        ticks, process = 0, self._process  # another thread may be decoding
        if process is not None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the child. A closed decoder cannot be used again."""
        self._stop()
        self._starter.shutdown()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr = os.memfd_create("decoder-stderr")
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        arguments = [str(theirs.fileno()), str(os.getpid()), str(self.limits.memory_limit_bytes)]
        with theirs:
            self._process = self._starter.submit(
                subprocess.Popen,
                [sys.executable, "-P", "-m", self._module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            ).result()
        try:
            self._receive(time.monotonic() + _START_S)
        except TrackError as error:
            self._stop()
            raise RuntimeError(f"{self._module} does not start: {error.message}") from error

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.close()
            os.close(self._stderr)

    def _exchange(self, fd: int | None, source: bytes | str | BinaryIO) -> tuple[dict[str, Any], list[int]]:
        """Asks the child, and reads for it what it wants; gives its answer with the descriptor of the samples."""
        if fd is None:
            self._send(json.dumps({"size": source.seek(0, io.SEEK_END)}).encode(), [])  # type: ignore[union-attr]
        else:
            self._send(b'{"size": null}', [fd])
        left_s = self.limits.time_limit_s
        while True:
            began = time.monotonic()
            answer, fds = self._receive(began + left_s)
            left_s -= time.monotonic() - began
            if "read" in answer:
                offset, size = answer["read"]
                source.seek(offset)  # type: ignore[union-attr]
                self._send(b"+" + source.read(size), [])  # type: ignore[union-attr]  # empty would be the connection's end
            else:
                return answer, fds

    def _send(self, message: bytes, fds: list[int]) -> None:
        try:
            socket.send_fds(self._socket, [message], fds)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error

    def _receive(self, deadline: float) -> tuple[dict[str, Any], list[int]]:
        self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError as error:
            message = f"decoding took longer than {self.limits.time_limit_s:g} s"
            raise TrackError("decode", "timed_out", message) from error
        except ConnectionResetError as error:
            raise self._death() from error
        finally:
            self._socket.settimeout(None)
        if not data:
            raise self._death()
        return json.loads(data), fds

    def _death(self) -> TrackError:
        """How the child ended, for one that closed its end of the socket."""
        assert self._process is not None
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return TrackError("decode", "crashed", "the decoder closed its connection")
        if status < 0:
            return TrackError("decode", "crashed", f"the decoder was killed by {signal.Signals(-status).name}")
        size = os.fstat(self._stderr).st_size
        last_lines = os.pread(self._stderr, 500, max(0, size - 500)).decode(errors="replace").strip().splitlines()
        return TrackError("decode", "crashed", f"the decoder exited with {status}: {' '.join(last_lines[-1:])}")


def _descriptor(source: bytes | str | BinaryIO) -> int | None:
    """A descriptor of what the child can read by itself; None for a file of this process."""
    if isinstance(source, bytes):
        fd = os.memfd_create("recording")
        with open(fd, "wb", closefd=False) as file:
            file.write(source)
        return fd
    if isinstance(source, str):
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us up
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{source} is not a regular file")
        return fd
    return None


def _read_answer(answer: dict[str, Any], fd: int) -> Recording:
    """The child's answer, its samples mapped."""
    with open(fd, "rb") as file:
        mapped = mmap.mmap(fd, os.fstat(file.fileno()).st_size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ)
    samples = np.split(np.frombuffer(mapped, np.float32), np.cumsum(answer["lengths"])[:-1])
    excerpts = tuple(
        Excerpt(samples=part, start_s=start_s) for part, start_s in zip(samples, answer["starts_s"], strict=True)
    )
    return Recording(excerpts=excerpts, duration_s=answer["duration_s"])


class _ParentFile(io.RawIOBase):
    """In the child: a file that the parent reads."""

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


def serve(read: Callable[[BinaryIO], Recording] = read_recording) -> None:
    """The child: reads recordings for the parent that started it, until that closes the connection.

    Args:
        read: what turns a file into a recording; may raise TrackError.
    """
    number, parent, memory_limit_bytes = map(int, sys.argv[1:4])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=number) as connection:
        connection.send(b"{}")
        while True:
            message, fds, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 1)
            if not message:
                return
            os.ftruncate(sys.stderr.fileno(), 0)  # the decoders' grumbling over earlier files
            os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)
            _answer(connection, read, fds, json.loads(message)["size"])


def _answer(connection: socket.socket, read: Callable[[BinaryIO], Recording], fds: list[int], size: int | None) -> None:
    out = None
    try:
        raw = io.FileIO(fds[0]) if size is None else _ParentFile(connection, size)
        with io.BufferedReader(raw, _READ_BYTES) as file:
            file.seek(0)  # a passed descriptor comes with its position
            recording = read(file)
        out = os.memfd_create("samples")
        with open(out, "wb", closefd=False) as samples:
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
    except OSError as error:  # a disk or a mount that fails
        answer = {"error": ["fetch", "unavailable", str(error)[:1000]]}
    socket.send_fds(connection, [json.dumps(answer).encode()], [out] if out is not None else [])
    if out is not None:
        os.close(out)


if __name__ == "__main__":
    serve()
