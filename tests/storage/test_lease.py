"""One run at a time holds a lease; dead holders are replaced, and a paused holder notices it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from mtl_core.errors import OtherRunError
from mtl_core.storage import lease
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location, VersionConflict


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 1.5)


def test_a_file_is_replaced_only_in_the_expected_version(root: str) -> None:
    file = Location(root) / "file"
    assert file.read_with_etag() is None
    with pytest.raises(VersionConflict):
        file.compare_and_swap(b"0", "version")
    version = file.compare_and_swap(b"1", None)
    assert file.read_with_etag() == (b"1", version)
    with pytest.raises(VersionConflict):
        file.compare_and_swap(b"2", None)
    newer = file.compare_and_swap(b"3", version)
    with pytest.raises(VersionConflict):
        file.compare_and_swap(b"4", version)
    assert file.read_with_etag() == (b"3", newer)


@pytest.mark.usefixtures("fast")
def test_one_holder_at_a_time(root: str) -> None:
    folder = Location(root)
    with lease.acquire(folder) as first:
        time.sleep(0.5)  # meanwhile it is renewed
        with pytest.raises(OtherRunError, match="another run is at work"), lease.acquire(folder):
            pass
        first.renew()
    assert folder.files() == [] and (folder / lease.LEASE_FILE).read_with_etag() is None
    with lease.acquire(folder):
        pass


@pytest.mark.usefixtures("fast")
def test_a_store_that_was_away_for_a_moment_does_not_end_the_renewals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore's error of a store that cannot be reached is no OSError."""

    def refuse(*_: object) -> str:
        raise EndpointConnectionError(endpoint_url="http://store")

    folder = Location(str(tmp_path))
    with lease.acquire(folder):
        with monkeypatch.context() as away:
            away.setattr(Location, "compare_and_swap", refuse)
            time.sleep(0.5)
        before = (folder / lease.LEASE_FILE).read_with_etag()
        time.sleep(0.6)
        assert (folder / lease.LEASE_FILE).read_with_etag() != before


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_a_damaged_lease_that_nobody_renews_is_taken_over(content: bytes, tmp_path: Path) -> None:
    folder = Location(str(tmp_path))
    (folder / lease.LEASE_FILE).write_bytes(content)
    holder = lease.read_holder(folder)
    assert holder is not None and not holder.has_ended
    with lease.acquire(folder):
        pass
    assert lease.read_holder(folder) is None


@pytest.mark.usefixtures("fast")
def test_a_paused_holder_notices_that_it_lost_the_lease(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Location(root)
    monkeypatch.setattr(lease, "_holder_has_exited", lambda holder: False)  # as if on another machine
    with lease.acquire(folder) as paused:
        paused._stop.set()  # its thread stops, as in a paused process
        paused._thread.join()
        with lease.acquire(folder) as successor:
            with pytest.raises(LeaseLostError):
                paused.renew()
            successor.renew()


HOLDER = """
import sys, time
from mtl_core.storage import lease
from mtl_core.storage.location import Location
with lease.acquire(Location(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["killed", "paused"])
def test_a_dead_holder_is_replaced_at_once_and_a_paused_one_later(
    root: str, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 2.0)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, root], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGSTOP if stopped else signal.SIGKILL)  # it stays a zombie
    time.sleep(0.2)
    begun = time.monotonic()
    with lease.acquire(Location(root)):
        waited = time.monotonic() - begun
    assert (waited >= 2.0) == stopped and waited < 10
    holder.kill()
    holder.wait()
    holder.stdout.close()


def test_one_of_many_simultaneous_runs_gets_the_lease(root: str) -> None:
    crowd = [
        subprocess.Popen([sys.executable, "-c", HOLDER, root], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         cwd=Path(__file__).parents[2])
        for _ in range(4)
    ]  # fmt: skip
    deadline = time.monotonic() + 60
    while sum(process.poll() is not None for process in crowd) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    alive = [process for process in crowd if process.poll() is None]
    assert len(alive) == 1
    assert alive[0].stdout is not None and alive[0].stdout.readline() == b"held\n"
    for process in crowd:
        process.kill()
        _, error = process.communicate()
        assert process in alive or b"another run is at work" in error
