"""Run a command and measure its whole tree of processes: CPU seconds and peaks of memory.

Call `adopt_orphans` first, so that processes which the command leaves behind (Ray does) are waited for too.
"""

import ctypes
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_EVERY_S = 0.2
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command used.

    Args:
        wall_s: until the command itself ended.
        cpu_s: of all its processes, each at its last sample: up to 0.2 s of each may be missing.
        stdout: what it printed on its standard output.
        driver_mib: peak resident memory of the command's own process.
        worker_mib: the same of the largest worker actor with its decoder process; 0 if there was no worker.
        largest_mib: the same of the largest process of all, up to its last sample.
    """

    wall_s: float
    cpu_s: float
    stdout: str
    driver_mib: float
    worker_mib: float
    largest_mib: float


def adopt_orphans() -> None:
    """Become the parent of processes that descendants leave behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(command: list[str], **environment: str) -> Usage:
    """Run a command to its end and wait for every process that it left behind.

    Raises:
        SystemExit: the command failed; the message ends with its standard error.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"} | environment,
    )
    assert process.stdout is not None and process.stderr is not None
    sampler = _Sampler()
    sampler.start()
    stdout: list[bytes] = []
    reader = threading.Thread(target=lambda: stdout.append(process.stdout.read()))  # type: ignore[union-attr]
    reader.start()
    stderr = b""
    for line in process.stderr:
        stderr = (stderr + line)[-4000:]
    driver_kib, wall_s = 0, 0.0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        if pid == process.pid:
            wall_s, driver_kib = time.monotonic() - start, usage.ru_maxrss
            if status:
                raise SystemExit(f"{' '.join(command)} failed:\n{stderr.decode(errors='replace')}")
    sampler.stop()
    reader.join()
    return Usage(
        wall_s=wall_s,
        cpu_s=sampler.cpu_s,
        stdout=b"".join(stdout).decode(),
        driver_mib=driver_kib / 1024,
        worker_mib=sampler.worker_kib / 1024,
        largest_mib=max(sampler.largest_kib, driver_kib) / 1024,
    )


class _Sampler(threading.Thread):
    """Reads /proc for all descendants of this process every 0.2 s.

    The system's own sums of a parent's children (`wait4`) miss Ray's workers, because Ray reaps them itself.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worker_kib = self.largest_kib = 0
        self._cpu_s: dict[tuple[str, str], float] = {}  # (pid, start time) -> CPU seconds at the last sample
        self._stopped = threading.Event()

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu_s.values())

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(_SAMPLE_EVERY_S):
            parents: dict[str, str] = {}
            times: dict[str, tuple[str, float]] = {}  # pid -> start time, CPU seconds
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # the process has just ended
                parents[folder.name] = fields[1]
                times[folder.name] = (fields[19], (int(fields[11]) + int(fields[12])) / _TICKS_PER_S)
            tree = _descendants(parents)
            for pid in tree:
                start, cpu_s = times[pid]
                self._cpu_s[pid, start] = cpu_s
            peak_kib = {pid: _peak_kib(pid) for pid in tree}
            self.largest_kib = max([self.largest_kib, *peak_kib.values()])
            for pid in tree:
                if _command(pid).startswith(b"ray::MapWorker"):
                    with_children = peak_kib[pid] + sum(peak_kib[child] for child in tree if parents[child] == pid)
                    self.worker_kib = max(self.worker_kib, with_children)


def _descendants(parents: dict[str, str]) -> list[str]:
    """The descendants of this process; `parents` maps each pid to its parent's."""
    own = str(os.getpid())
    tree = []
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != own:
            ancestor = parents[ancestor]
        if ancestor == own and pid != own:
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
