"""Node memory: what is free on this node, and the turns in which a decoder may take more than its ordinary share.

Decoders of all processes of a user on a node share the turns, which are locked files in the temporary folder. The
kernel frees the lock of a process that ends, however it ends. Sizes are in bytes.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mtl_core.errors import TrackError, one_line

#: Of the node's memory, stays free while a decoder has a turn. Ray kills a worker where less than 5 % are free.
_RESERVE = 0.08
_RETRY_S = 0.1
_CGROUPS = Path("/sys/fs/cgroup")


def find_memory() -> tuple[int, int]:
    """The memory of this node and what is free of it: of its control groups (a container's), else of the machine.

    Pages of files count as free: the kernel drops them when memory is needed.
    """
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    machine = {name: int(value) * 1024 for name, value, *_ in lines}
    nodes = [(machine["MemTotal:"], machine["MemAvailable:"])]
    for limit, used, stat in _control_groups():
        text = limit.read_text().strip() if limit.exists() else "max"
        if text != "max" and int(text) < machine["MemTotal:"]:
            counts = dict(line.split() for line in stat.read_text().splitlines())
            prefix = "total_" if "total_inactive_file" in counts else ""  # with the groups below it
            files = sum(int(counts[f"{prefix}{kind}_file"]) for kind in ("inactive", "active"))
            nodes.append((int(text), int(text) - int(used.read_text()) + files))
    return min(nodes, key=lambda node: node[1])


def _control_groups() -> Iterator[tuple[Path, Path, Path]]:
    """The files of limit, use and statistics of this process's control group and those above it, see cgroups(7)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUPS, ("memory.max", "memory.current", "memory.stat")
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                limit, used, stat = (folder / name for name in names)
                yield limit, used, stat


class MemoryTurn:
    """A turn in which this process's decoder may take up to so many bytes; the constructor waits for it.

    As many turns are given at the same time as there is memory free for, but always one. `check` says when that one
    has to end.

    Raises:
        TrackError: fetch/unavailable: the temporary folder holds no locked file.
    """

    def __init__(self, n_bytes: int) -> None:
        while (lock := self._lock_one(n_bytes)) is None:
            time.sleep(_RETRY_S)
        self._lock = lock

    @staticmethod
    def _lock_one(n_bytes: int) -> BinaryIO | None:
        """A locked file; None if all turns are taken.

        Those who have the turns before turn k may still take all that they are allowed: it needs the memory of k + 1.
        """
        total, free = find_memory()
        for number in range(max(1, (free - int(_RESERVE * total)) // n_bytes)):
            path = Path(tempfile.gettempdir()) / f"mtl-core-{os.getuid()}-large-decoder-{number}.lock"
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:  # of the temporary folder: as an error of the track, it would seem not to be there
                raise TrackError("fetch", "unavailable", f"no turn for a large decoder: {one_line(error)}") from None
            lock = open(fd, "wb")  # noqa: SIM115  it is closed when the turn ends
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
            else:
                return lock
        return None

    def check(self) -> None:
        """Raise TrackError (decode/killed) where the node's memory is nearly used up: the decoder must end."""
        total, free = find_memory()
        if free < _RESERVE * total:
            left = f"{free >> 20} of the node's {total >> 20} MiB of memory were left"
            raise TrackError("decode", "killed", f"{left}: {_RESERVE:.0%} have to stay free")

    def end(self) -> None:
        """Give the turn to the next one."""
        self._lock.close()
