"""Termination: a job that gets SIGTERM gives up what it holds and ends within two seconds, with status 143.

`ray job stop` and Kubernetes send SIGTERM, and SIGKILL some seconds later. To end Ray in good order takes longer than
that, and is not needed: a run that was killed resumes. The process ends without it; the processes of a local Ray end
with their parent.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

TERMINATED = 128 + signal.SIGTERM  # the exit status
GRACE_S = 1.5  # for the handler, which runs only between two steps of the main thread's Python code

_cleanups: list[Callable[[], None]] = []
_is_installed = False


@contextlib.contextmanager
def cleanup(function: Callable[[], None]) -> Iterator[None]:
    """Call a function if SIGTERM comes while the body runs. It must not raise, and must take less than `GRACE_S`."""
    _cleanups.append(function)
    try:
        yield
    finally:
        _cleanups.remove(function)


def install() -> None:
    """Handle SIGTERM in this process from now on; to be called by its main thread, and no library's user."""
    global _is_installed
    if not _is_installed:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_when_stuck, args=(reader,), daemon=True, name="termination").start()
        _is_installed = True
    signal.signal(signal.SIGTERM, _terminate)


def install_again() -> None:
    """Undo that `ray.init` has set a handler of its own; nothing where `install` was not called."""
    if _is_installed:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    for function in reversed(_cleanups):
        function()
    print(f"stopped by SIGTERM: the same command resumes [exit status {TERMINATED}]", file=sys.stderr)
    _end()


def _end_when_stuck(reader: int) -> None:
    """End the process where the main thread does not come to the handler: it is in a library's code, or writes to a
    terminal that nobody reads. Then the next run finds that the holder of the lease has ended."""
    while os.read(reader, 1) != bytes([signal.SIGTERM]):
        pass
    time.sleep(GRACE_S)
    os._exit(TERMINATED)


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(TERMINATED)
