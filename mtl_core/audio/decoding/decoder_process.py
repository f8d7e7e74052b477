"""Decoder: decodes recordings in a long-lived child process, so that a bad file costs one track.

A decoder of untrusted files can crash, hang, allocate without end, or be made to do what the file's author wants. Here
that ends the child, which can do nothing but decode (`sandbox`): the track fails with a reason, and the next track
starts another child. Parent and child exchange JSON over a socket, and the parent checks it (`decoder_protocol`). Whole
files go to the child, and samples come back, as memory files (memfd) that are mapped, not copied. A remote file stays
in the parent, which reads the parts that the child asks for.

A child may grow by an ordinary share of memory. A recording that needs more is given to another child, which may take
the whole limit, when this decoder has its turn (`node_memory`). The next recording starts an ordinary child again.

The child inherits nothing but the socket, stderr and the variables of `_ENVIRONMENT`, and it dies with its parent,
however the parent ends.
"""

import contextlib
import io
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mtl_core.audio.decoding.decode import Recording, Stretches
from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.decoder_protocol import MESSAGE_BYTES, ChildMessage, batches, joined
from mtl_core.audio.decoding.node_memory import MemoryTurn
from mtl_core.audio.decoding.process_starter import ProcessStarter
from mtl_core.errors import TrackError

DECODER = "mtl_core.audio.decoding.decoder_child"
_START_TIMEOUT_S = 60.0  # importing numpy and PyAV takes long on a busy machine
_WATCH_EVERY_S = 0.02  # the node's memory: in that time a child can fill 100 MiB
_READ_TIMEOUT_S = 3_600.0  # of this process reading one recording: a child could ask for bytes without end
#: The variables of the environment that the child gets; no credentials.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")

Answer = TypeVar("Answer")


class Decoder:
    """Decodes recordings in a child process: the module `child`, which calls `decoder_child.serve`.

    A recording is opened; then stretches of it are read, as often as one likes, until the next one is opened. Use it
    from one thread at a time; close it, or use it as a context manager.
    """

    def __init__(self, limits: DecoderLimits | None = None, child: str = DECODER) -> None:
        self.limits = limits or DecoderLimits()
        self._module = child
        self._process: subprocess.Popen[bytes] | None = None
        #: What is open: a descriptor for the child, or a file that this process reads for it; and its bytes.
        self._source: tuple[int | BinaryIO | io.BufferedIOBase, int] | None = None
        self._turn: MemoryTurn | None = None  # of a child that may take all of the memory limit
        self._rate_hz: int | None = None  # of the recording that is open
        self._remaining_s = 0.0  # of the time limit of the recording that is open
        self._reading_s = 0.0  # of this process, for that recording
        self._starter = ProcessStarter()

    def open(self, source: bytes | str | BinaryIO | io.BufferedIOBase) -> tuple[int, int]:
        """Open a recording, and return its rate in Hz and its length in frames.

        Args:
            source: the bytes of a file, the path of a local file, or a seekable file of this process, of which only
                the parts that decoding needs are read.

        Raises:
            TrackError: stage decode: those of `decode.open_sound`, `too_large`, `crashed`, `timed_out`,
                `out_of_memory`, `killed`; stage fetch: `unavailable`, a local file that cannot be read.
            OSError: the path is not that of a readable regular file.
            Exception: what reading the source raised.
            RuntimeError: the child does not start: the installation is broken, not the track.
        """
        self.end_turn()
        self._close_source()
        opened = _open_source(source)
        size = os.fstat(opened).st_size if isinstance(opened, int) else opened.seek(0, io.SEEK_END)
        self._source = (opened, size)
        if size > self.limits.max_bytes:
            raise TrackError("decode", "too_large", f"{size} bytes: allowed are up to {self.limits.max_bytes}")
        return self._with_memory(self._open)

    def read(self, stretches: Stretches) -> Recording:
        """Decode stretches of the recording that is open.

        Their samples are read-only and stay valid after the next call. Raises what `open` raises.
        """
        if self._rate_hz is None or self._process is None:
            raise TrackError("decode", "crashed", "no recording is open: the decoder has ended, or did not open it")
        return joined([self._with_memory(partial(self._read, part)) for part in batches(stretches)])

    def end_turn(self) -> None:
        """End a child that may take all of the memory limit, if this is one, and with it its recording.

        Call it as soon as a recording has been read: decoders of other processes may wait for it.
        """
        if self._turn is not None:
            self._stop()
            self._turn.end()
            self._turn = None

    def cpu_s(self) -> float:
        """CPU seconds of all children so far: of those that ended, and of the one that runs."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        ticks, process = 0, self._process  # another thread may be decoding
        if process is not None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the child. A closed decoder cannot be used again."""
        self.end_turn()
        self._close_source()
        self._stop()
        self._starter.end()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_memory(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns. Where an ordinary child fails as for want of memory, a larger one is asked in its turn.

        Libraries may crash where they get no memory.
        """
        if self._turn is None:
            try:
                return ask()
            except TrackError as error:
                if error.error not in ("out_of_memory", "crashed"):
                    raise
            self._turn = MemoryTurn(self.limits.memory_limit_bytes)
        try:
            return ask()
        except BaseException:
            self.end_turn()
            raise

    def _open(self) -> tuple[int, int]:
        if not self._is_idle():  # it may have died between two tracks
            self._stop()
            self._start()
        self._remaining_s, self._reading_s = self.limits.time_limit_s, 0.0
        assert self._source is not None
        file, size = self._source
        fds = [file] if isinstance(file, int) else []
        self._rate_hz, n_frames = self._exchange({"open": None if fds else size}, fds, self._opened)
        return self._rate_hz, n_frames

    def _read(self, part: Stretches) -> Recording:
        if self._process is None:  # it was a smaller child that had opened the recording
            self._open()
        assert self._rate_hz is not None
        request = {"places": part.places, "are_excerpts": part.are_excerpts}
        return self._exchange(request, [], partial(ChildMessage.recording, stretches=part, rate_hz=self._rate_hz))

    def _close_source(self) -> None:
        if self._source is not None and isinstance(self._source[0], int):
            os.close(self._source[0])
        self._source = self._rate_hz = None

    def _start(self) -> None:
        self._socket, child_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr = os.memfd_create("decoder-stderr")
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        limits = {
            "memory_limit_bytes": self.limits.memory_limit_bytes,
            "growth_bytes": self.limits.growth_bytes if self._turn is None else None,
            **asdict(self.limits.sound),
        }
        arguments = [str(child_socket.fileno()), str(os.getpid()), json.dumps(limits)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with child_socket:
            self._process = self._starter.start_process(
                [sys.executable, "-P", "-m", self._module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[child_socket.fileno()],
                env=environment | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self._remaining_s = _START_TIMEOUT_S
        try:
            refused = self._receive().ready()
        except TrackError as error:
            self._stop()
            if error.error == "killed":
                raise
            raise RuntimeError(f"{self._module} does not start: {error.message}") from error
        if refused is not None:
            warnings.warn(f"files are decoded without a sandbox: {refused}", RuntimeWarning, stacklevel=3)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.close()
            os.close(self._stderr)

    def _is_idle(self) -> bool:
        """Whether the child runs, and has sent nothing that it was not asked for."""
        if self._process is None or self._process.poll() is not None:
            return False
        return not self._has_sent(0)

    def _has_sent(self, wait_s: float) -> bool:
        """Whether the child has sent something, or ended, within so many seconds."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1000 * wait_s))

    def _exchange(self, request: dict[str, Any], fds: list[int], parse: Callable[[ChildMessage], Answer]) -> Answer:
        """Send a request to the child, and return its answer as `parse` reads it."""
        try:
            self._send(json.dumps(request).encode(), fds)
            answer = self._await_answer()
            error = answer.error()
            if error is None:
                return parse(answer)
        except BaseException:  # the child died, hangs, sent nonsense, or waits for bytes that could not be read
            self._stop()
            raise
        if error.error == "out_of_memory":
            self._stop()
        raise error

    def _opened(self, answer: ChildMessage) -> tuple[int, int]:
        rate_hz, n_frames = answer.opened()
        self.limits.sound.check(rate_hz=rate_hz, n_channels=1, n_frames=n_frames)  # as a child should have done
        return rate_hz, n_frames

    def _await_answer(self) -> ChildMessage:
        """Serve what the child reads of the file that is open, until its answer comes."""
        while True:
            message = self._receive()
            file, file_bytes = self._source or (0, 0)
            request = message.read_request(0 if isinstance(file, int) else file_bytes)  # the child reads a descriptor
            if request is None or isinstance(file, int):
                return message
            if self._reading_s > _READ_TIMEOUT_S:
                raise TrackError("decode", "timed_out", f"reading the file took longer than {_READ_TIMEOUT_S:g} s")
            offset, size = request
            began = time.monotonic()
            file.seek(offset)
            data = file.read(size)
            self._reading_s += time.monotonic() - began
            self._send(b"+" + data, [])  # "+": an empty packet would mean the end of the connection

    def _send(self, message: bytes, fds: list[int]) -> None:
        with self._within_the_limit():
            socket.send_fds(self._socket, [message], fds)

    def _receive(self) -> ChildMessage:
        with self._within_the_limit():
            self._watch_memory()
            packet, fds, flags, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not packet and not fds:
            raise self._crash()
        return ChildMessage(packet, fds, flags)

    def _watch_memory(self) -> None:
        """While a child has a turn, check the node's memory until the child answers."""
        deadline = time.monotonic() + self._remaining_s
        while self._turn is not None and not self._has_sent(_WATCH_EVERY_S):
            self._turn.check()
            if time.monotonic() > deadline:
                raise TimeoutError

    @contextlib.contextmanager
    def _within_the_limit(self) -> Iterator[None]:
        """Let the socket wait as long as the recording's time limit allows: the child may neither send nor receive."""
        began = time.monotonic()
        self._socket.settimeout(max(1e-3, self._remaining_s))
        try:
            yield
        except TimeoutError as error:
            message = f"decoding took longer than {self.limits.time_limit_s:g} s"
            raise TrackError("decode", "timed_out", message) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._crash() from error
        finally:
            self._remaining_s -= time.monotonic() - began

    def _crash(self) -> TrackError:
        """The error of a child that has closed its end of the socket."""
        assert self._process is not None
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return TrackError("decode", "crashed", "the decoder closed its connection")
        if status == -signal.SIGKILL:
            return TrackError("decode", "killed", "the decoder was killed by SIGKILL, as when the memory runs out")
        if status < 0:
            names = {number.value: number.name for number in signal.Signals}  # most real-time signals have none
            name = names.get(-status, f"signal {-status}")
            return TrackError("decode", "crashed", f"the decoder was killed by {name}")
        size = os.fstat(self._stderr).st_size
        last_lines = os.pread(self._stderr, 500, max(0, size - 500)).decode(errors="replace").strip().splitlines()
        return TrackError("decode", "crashed", f"the decoder exited with {status}: {' '.join(last_lines[-1:])}")


def _open_source(source: bytes | str | BinaryIO | io.BufferedIOBase) -> int | BinaryIO | io.BufferedIOBase:
    """A descriptor that the child reads from; where the source is a file of this process, that file."""
    if isinstance(source, bytes):
        fd = os.memfd_create("recording")
        with open(fd, "wb", closefd=False) as file:
            file.write(source)
        return fd
    if isinstance(source, str):
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe must not block
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{source} is not a regular file")
        return fd
    return source
