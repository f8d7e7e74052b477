"""The whole tree of a command's processes: its CPU seconds and its peaks of memory.

`adopt_orphans` must be called first: what a command leaves behind (Ray does) is then waited for, too.
"""

import ctypes
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a command has spent.

    Args:
        wall_s: until it ended itself.
        cpu_s: of all its processes.
        said: what it printed on its standard output.
        driver_mib: peak of resident memory of the command's own process.
        worker_mib: the same of the largest worker actor with its decoder child; 0 where there was none.
        largest_mib: the same of the largest process of all.
    """

    wall_s: float
    cpu_s: float
    said: str
    driver_mib: float
    worker_mib: float
    largest_mib: float


def adopt_orphans() -> None:
    """Become the parent of what descendants leave behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(command: list[str], **environment: str) -> Spent:
    """Run a command to its end and wait for every process that it left behind."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"} | environment,
    )
    assert process.stdout is not None and process.stderr is not None
    peaks = _Peaks()
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))  # type: ignore[union-attr]
    reader.start()
    complaint = b""
    for line in process.stderr:
        complaint = (complaint + line)[-4000:]
    cpu_s, largest_kib, driver_kib, wall_s = 0.0, 0, 0, 0.0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu_s += usage.ru_utime + usage.ru_stime
        largest_kib = max(largest_kib, usage.ru_maxrss)
        if pid == process.pid:
            wall_s, driver_kib = time.monotonic() - begun, usage.ru_maxrss
            if status:
                raise SystemExit(f"{' '.join(command)} failed:\n{complaint.decode(errors='replace')}")
    peaks.stop()
    reader.join()
    return Spent(
        wall_s=wall_s,
        cpu_s=cpu_s,
        said=b"".join(said).decode(),
        driver_mib=driver_kib / 1024,
        worker_mib=peaks.worker_kib / 1024,
        largest_mib=largest_kib / 1024,
    )


@dataclass
class _Peaks:
    """Looks at the workers while they live: what is waited for are their parents' children, not they by name."""

    worker_kib: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_EVERY_S):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if not (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                        continue
                    children = (folder / "task" / folder.name / "children").read_text().split()
                    threads = [(task / "children").read_text().split() for task in (folder / "task").iterdir()]
                    family = {folder.name, *children, *(child for found in threads for child in found)}
                    self.worker_kib = max(self.worker_kib, sum(_peak_kib(Path("/proc") / pid) for pid in family))
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has just ended


def _peak_kib(folder: Path) -> int:
    lines = (folder / "status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
