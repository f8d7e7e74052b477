"""Process starter: a thread that starts processes, which end with it.

The kernel ends a process that asks for it (prctl, PR_SET_PDEATHSIG) with the thread that started it. So the thread must
outlive the caller's. It is a daemon: when this process exits it lives to the very end. A thread that Python joins
before would end the child while another thread still decodes with it, and that track would seem to have crashed it.
"""

import queue
import subprocess
import threading
from concurrent.futures import Future
from typing import Any


class ProcessStarter:
    """A thread that starts processes."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[subprocess.Popen[bytes]], Any, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="decoder-starter", daemon=True).start()

    def start_process(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """`subprocess.Popen(command, **options)`."""
        started: Future[subprocess.Popen[bytes]] = Future()
        self._calls.put((started, command, options))
        return started.result()

    def end(self) -> None:
        """End the thread, and with it the processes."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            started, command, options = call
            try:
                started.set_result(subprocess.Popen(command, **options))
            except OSError as error:
                started.set_exception(error)
