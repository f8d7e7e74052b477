"""Lease: who may write under a folder. One run at a time, whatever dies, pauses or is cut off.

The holder renews `_lease.json` every `RENEW_S`. Who finds a lease watches it for `DEAD_AFTER_S`: renewed, it is held;
else it is taken over. Clocks of different machines are never compared: a watcher only sees whether the file changes. A
holder that ended on this very machine is known to be dead at once. Every change is conditional on what was there
before, so that of two who take over one succeeds, and a holder that was paused finds that the lease is no longer its
own.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mtl_core.errors import InputError, RunError
from mtl_core.storage.location import Location, VersionConflict, as_input_error

RENEW_S = 5.0
DEAD_AFTER_S = 20.0
LEASE_FILE = "_lease.json"


class LeaseLostError(RunError):
    """Another run has taken over: this one must not change anything any more."""


@dataclass(frozen=True, kw_only=True)
class _LeaseRecord:
    """What the lease's file says.

    Args:
        owner: of the run that holds it; a new one for every process.
        host: name of its machine, for people.
        process: what tells on the same machine whether the process still lives.
        renewals: goes up with every renewal.
    """

    owner: str
    host: str
    process: str
    renewals: int

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> "_LeaseRecord":
        return cls(**json.loads(data))


class Lease:
    """A lease that is held; made by `held`."""

    def __init__(self, at: Location, note: _LeaseRecord, version: str) -> None:
        self._at, self._note, self._version = at, note, version
        self._renewed = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, daemon=True, name="lease")
        self._lost: str | None = None

    def renew(self) -> None:
        """Renew the lease now: from here on nobody has taken it over for `DEAD_AFTER_S`, if this returns soon.

        Raises:
            LeaseLostError: it is another's.
        """
        with self._lock:
            self._renew()

    def raise_if_lost(self) -> None:
        """As `check`, by what the last renewal found: nothing is asked of the store.

        Raises:
            LeaseLostError: it is another's.
        """
        if self._lost is not None:
            raise LeaseLostError(f"{self._at}: the lease is lost: {self._lost}")

    def _renew(self) -> None:
        if self._lost is None and time.monotonic() - self._renewed > DEAD_AFTER_S:
            self._lost = f"it was not renewed for {time.monotonic() - self._renewed:.0f} s"
        if self._lost is None:
            note = _LeaseRecord(**asdict(self._note) | {"renewals": self._note.renewals + 1})
            try:
                self._version = self._at.compare_and_swap(note.encode(), self._version)
            except VersionConflict:
                self._lost = "another run has taken it over"
            else:
                self._note, self._renewed = note, time.monotonic()
        self.raise_if_lost()

    def _renew_for_ever(self) -> None:
        while not self._stop.wait(RENEW_S):
            # A loss is said by check(); a store that does not answer may come back in time.
            with self._lock, contextlib.suppress(LeaseLostError, OSError):
                self._renew()

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self.renew()
            self._at.delete()
        except LeaseLostError:
            if failed is not None:  # for this reason: the successor has changed or removed what the body worked on
                raise


@contextlib.contextmanager
def acquire(folder: Location) -> Iterator[Lease]:
    """Hold the lease of `folder` while the body runs.

    Raises:
        InputError: another run holds it, or it cannot be written.
    """
    at = folder / LEASE_FILE
    note = _LeaseRecord(owner=uuid.uuid4().hex, host=socket.gethostname(), process=_process(os.getpid()), renewals=0)
    with as_input_error(folder):
        version = _take(at, note)
    with Lease(at, note, version) as lease:
        yield lease


def _take(at: Location, note: _LeaseRecord) -> str:
    """The version of the lease's file once it is ours."""
    while True:
        found = at.read_with_etag()
        try:
            if found is None:
                return at.compare_and_swap(note.encode(), None)
            data, version = found
            holder = _LeaseRecord.decode(data)
            if not _holder_has_exited(holder) and _is_renewed(at, version):
                raise InputError(
                    f"{at.uri.removesuffix('/' + LEASE_FILE)}: another run is at work on {holder.host} ({holder.process}): "
                    "wait for it, or stop it"
                )
            return at.compare_and_swap(note.encode(), version)
        except VersionConflict:
            continue  # someone was faster: look again


def _is_renewed(at: Location, version: str) -> bool:
    """Whether the lease changes within the time after which it is dead."""
    deadline = time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        found = at.read_with_etag()
        if found is None:
            return False
        if found[1] != version:
            return True
    return False


def _process(pid: int) -> str:
    """A name that no other process ever had: of the boot, of the process namespace, the pid and its start in clock
    ticks.

    Raises:
        FileNotFoundError: there is no such process, or it has ended and nobody asked how.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state in "ZX":
        raise FileNotFoundError
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}/{pid}/{fields[18]}"


def _holder_has_exited(holder: _LeaseRecord) -> bool:
    """Whether the holder ran in this process namespace and has ended; False where that cannot be known."""
    here, (where, pid, _) = _process(os.getpid()).rsplit("/", 2)[0], holder.process.rsplit("/", 2)
    try:
        return where == here and _process(int(pid)) != holder.process
    except FileNotFoundError:
        return True
