"""The whole tree of a command's processes: its CPU seconds and its peaks of memory.

`adopt_orphans` must be called first: what a command leaves behind (Ray does) is then waited for, too.
"""

import ctypes
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a command has spent.

    Args:
        wall_s: until it ended itself.
        cpu_s: of all its processes, each as it was last seen: up to 0.2 s of each may be missing.
        said: what it printed on its standard output.
        driver_mib: peak of resident memory of the command's own process.
        worker_mib: the same of the largest worker actor with its decoder child; 0 where there was none.
        largest_mib: the same of the largest process of all, as long as it was seen.
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
    watch = _Watch()
    watch.start()
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))  # type: ignore[union-attr]
    reader.start()
    complaint = b""
    for line in process.stderr:
        complaint = (complaint + line)[-4000:]
    driver_kib, wall_s = 0, 0.0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        if pid == process.pid:
            wall_s, driver_kib = time.monotonic() - begun, usage.ru_maxrss
            if status:
                raise SystemExit(f"{' '.join(command)} failed:\n{complaint.decode(errors='replace')}")
    watch.stop()
    reader.join()
    return Spent(
        wall_s=wall_s,
        cpu_s=watch.cpu_s,
        said=b"".join(said).decode(),
        driver_mib=driver_kib / 1024,
        worker_mib=watch.worker_kib / 1024,
        largest_mib=max(watch.largest_kib, driver_kib) / 1024,
    )


class _Watch(threading.Thread):
    """Looks at the tree while it lives: who reaps his children unseen (Ray does) keeps what they spent to himself."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worker_kib = self.largest_kib = 0
        self._cpu_s: dict[tuple[str, str], float] = {}  # of each process, by its number and start
        self._over = threading.Event()

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu_s.values())

    def stop(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(_EVERY_S):
            parents: dict[str, str] = {}
            found: dict[str, tuple[str, float]] = {}
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has just ended
                parents[folder.name] = fields[1]
                found[folder.name] = (fields[19], (int(fields[11]) + int(fields[12])) / _TICKS)
            tree = _descendants(parents)
            for pid in tree:
                start, cpu_s = found[pid]
                self._cpu_s[pid, start] = cpu_s
            peak_kib = {pid: _peak_kib(pid) for pid in tree}
            self.largest_kib = max([self.largest_kib, *peak_kib.values()])
            for pid in tree:
                if _command(pid).startswith(b"ray::MapWorker"):
                    family = peak_kib[pid] + sum(peak_kib[child] for child in tree if parents[child] == pid)
                    self.worker_kib = max(self.worker_kib, family)


_TICKS = os.sysconf("SC_CLK_TCK")


def _descendants(parents: dict[str, str]) -> list[str]:
    """Of this process."""
    own = str(os.getpid())
    tree = []
    for pid in parents:
        at = pid
        while at in parents and at != own:
            at = parents[at]
        if at == own and pid != own:
            tree.append(pid)
    return tree


def _command(pid: str) -> bytes:
    try:
        return (Path("/proc") / pid / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _peak_kib(pid: str) -> int:
    try:
        lines = (Path("/proc") / pid / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
