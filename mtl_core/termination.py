"""Termination: a job that gets SIGTERM gives up what it holds and ends within two seconds, with status 143.

`ray job stop` and Kubernetes send SIGTERM, and SIGKILL some seconds later. To end Ray in good order takes longer than
that, and is not needed: a run that was killed resumes. The process ends without it; the processes of a local Ray end
with their parent.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from mtl_core import log

TERMINATED = 128 + signal.SIGTERM  # the exit status
GRACE_S = 1.0  # for the handler; half as much again for a thread that does its work

_cleanups: list[Callable[[], None]] = []
_is_installed = False


@contextlib.contextmanager
def cleanup(function: Callable[[], None]) -> Iterator[None]:
    """Call a function if SIGTERM comes while the body runs; it must not raise. Another thread may call it again."""
    _cleanups.append(function)
    try:
        yield
    finally:
        _cleanups.remove(function)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back while the body runs, and handle them after it.

    A body can start a process and note it, so that the handler ends that process, too.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler runs there
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        for signal_number in came:
            signal.raise_signal(signal_number)


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


@contextlib.contextmanager
def handler_replaced() -> Iterator[None]:
    """Run a body that sets a handler of its own, which raises SystemExit, as `ray.init` does. Afterwards ours is back.

    Where `install` was not called, this does nothing.
    """
    try:
        yield
    except SystemExit:
        if _is_installed:
            _terminate()
        raise
    if _is_installed:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    """The handler. Python runs it in the main thread, between two steps of its code."""
    _clean_up()
    os._exit(TERMINATED)


def _clean_up() -> None:
    for function in reversed(_cleanups):
        function()
    message = f"stopped by SIGTERM: the same command resumes [exit status {TERMINATED}]"
    log.event("end", message, level=logging.ERROR, exit_status=TERMINATED)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _end_when_stuck(reader: int) -> None:
    """End the process where the main thread is long in a library's code, such as `ray.init`, and runs no handler."""
    while os.read(reader, 1) != bytes([signal.SIGTERM]):
        pass
    time.sleep(GRACE_S)
    cleaner = threading.Thread(target=_clean_up, daemon=True)
    cleaner.start()
    cleaner.join(GRACE_S / 2)  # a store may not answer
    os._exit(TERMINATED)
