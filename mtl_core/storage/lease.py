"""Lease: lets one run at a time write under a folder, even if runs die, pause or lose the network.

The holder renews `_lease.json` every `RENEW_S`. If a lease exists, a new run watches it for `DEAD_AFTER_S`. If it
changes, someone holds it; otherwise the new run takes it over. Clocks of different machines are never compared: a run
only sees whether the file changes. If the holder ran on this machine and has exited, it is taken over at once. Every
write is conditional on the version read before. So of two runs that take over at the same time one succeeds, and a
holder that was paused finds that it lost the lease.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mtl_core import termination
from mtl_core.errors import OtherRunError, RunError
from mtl_core.storage.checks import as_input_error
from mtl_core.storage.location import Location, VersionConflict

RENEW_S = 5.0
DEAD_AFTER_S = 20.0
LEASE_FILE = "_lease.json"


class LeaseLostError(RunError):
    """Another run has taken over. This run must not change anything any more."""


@dataclass(frozen=True, kw_only=True)
class _LeaseRecord:
    """The content of the lease file."""

    owner: str  # of the run that holds it; unique for every process
    host: str  # name of its machine, for messages
    process: str  # see _process
    renewals: int  # increases with every renewal

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> "_LeaseRecord":
        """The inverse of `encode`. Of a damaged file, as after a loss of power, the holder is unknown."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return cls(owner="", host="an unknown machine", process="unknown/unknown/0", renewals=0)


class Lease:
    """A lease that this process holds, renewed by a thread; made by `acquire`."""

    def __init__(self, file: Location, record: _LeaseRecord, version: str) -> None:
        self._file, self._record, self._version = file, record, version
        self._renewed_at_s = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, daemon=True, name="lease")
        self._loss: str | None = None
        self._cleanup = termination.cleanup(self._give_up)

    def renew(self) -> None:
        """Renew the lease, or raise LeaseLostError. If this returns, no other run can take over for `DEAD_AFTER_S`."""
        with self._lock:
            if self._loss is None and time.monotonic() - self._renewed_at_s > DEAD_AFTER_S:
                self._loss = f"it was not renewed for {time.monotonic() - self._renewed_at_s:.0f} s"
            if self._loss is None:
                record = replace(self._record, renewals=self._record.renewals + 1)
                try:
                    self._version = self._file.compare_and_swap(record.encode(), self._version)
                except VersionConflict:
                    self._loss = "another run has taken it over"
                else:
                    self._record, self._renewed_at_s = record, time.monotonic()
            self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raise LeaseLostError if a renewal has failed because of another run, without a request to the store."""
        if self._loss is not None:
            raise LeaseLostError(f"{self._file}: the lease is lost: {self._loss}")

    def _renew_until_stopped(self) -> None:
        from botocore.exceptions import BotoCoreError  # not an OSError: the store cannot be reached

        while not self._stop.wait(RENEW_S):
            # The run's own thread reports a loss (`raise_if_lost`). A store that fails now may answer next time.
            with contextlib.suppress(LeaseLostError, BotoCoreError, OSError):
                self.renew()

    def __enter__(self) -> "Lease":
        self._thread.start()
        self._cleanup.__enter__()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._cleanup.__exit__(None, None, None)
        self._stop.set()
        self._thread.join()
        try:
            self.renew()
            self._file.delete()
        except LeaseLostError:
            if error is not None:  # the loss explains the error: the next run changed the files of this one
                raise

    def _give_up(self) -> None:
        """Give the lease up in a process that ends now. If that fails, the next run finds that the holder has ended."""
        from botocore.exceptions import BotoCoreError

        if self._lock.acquire(timeout=termination.GRACE_S / 2):  # not where a renewal was interrupted
            with contextlib.suppress(VersionConflict, BotoCoreError, OSError):
                record = replace(self._record, renewals=self._record.renewals + 1)
                self._file.compare_and_swap(record.encode(), self._version)  # it is still held
                self._file.delete()


def acquire(folder: Location) -> Lease:
    """Take the lease of `folder`; to be used in a `with` statement, which renews it and gives it up.

    Raises:
        OtherRunError: another run holds it.
        InputError: it cannot be written.
    """
    file = folder / LEASE_FILE
    record = _LeaseRecord(owner=uuid.uuid4().hex, host=socket.gethostname(), process=_process(os.getpid()), renewals=0)
    with as_input_error(folder):
        return Lease(file, record, _take(file, record))


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lease."""

    host: str  # name of its machine
    process: str
    has_ended: bool  # only known of processes on this machine
    renewed_s_ago: float  # by this machine's clock; a holder at work renews every `RENEW_S`


def read_holder(folder: Location) -> Holder | None:
    """Who holds the lease of `folder`, without waiting whether it is renewed; None: nobody."""
    found = (folder / LEASE_FILE).read_with_etag()
    if found is None:
        return None
    record = _LeaseRecord.decode(found[0])
    try:
        age_s = (folder / LEASE_FILE).age_s()
    except FileNotFoundError:  # it has just been given up
        return None
    ended = _holder_has_exited(record)
    return Holder(host=record.host, process=record.process, has_ended=ended, renewed_s_ago=age_s)


def _take(file: Location, record: _LeaseRecord) -> str:
    """Write the lease file. Returns its version."""
    while True:
        data, version = file.read_with_etag() or (None, None)
        if data is not None:
            holder = _LeaseRecord.decode(data)
            if not _holder_has_exited(holder) and _is_renewed(file, version):
                raise OtherRunError(
                    f"{file.uri.removesuffix('/' + LEASE_FILE)}: another run is at work on {holder.host} "
                    f"({holder.process}): wait for it, or stop it"
                )
        with contextlib.suppress(VersionConflict):  # another run was faster
            return file.compare_and_swap(record.encode(), version)


def _is_renewed(file: Location, version: str | None) -> bool:
    """Whether the lease file changes within `DEAD_AFTER_S`."""
    deadline = time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        current = file.read_with_etag()
        if current is None:
            return False
        if current[1] != version:
            return True
    return False


def _process(pid: int) -> str:
    """A name unique to one process: boot id, pid namespace, pid, and start time. FileNotFoundError if it has ended."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state in "ZX":  # a zombie
        raise FileNotFoundError
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}/{pid}/{fields[18]}"


def _holder_has_exited(holder: _LeaseRecord) -> bool:
    """Whether the holder ran in this pid namespace and has exited; False if that cannot be known."""
    this_namespace = _process(os.getpid()).rsplit("/", 2)[0]
    namespace, pid, _ = holder.process.rsplit("/", 2)
    try:
        return namespace == this_namespace and _process(int(pid)) != holder.process
    except FileNotFoundError:
        return True
