"""A night on this machine whose driver ends, or is left, in an unusual way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_core.pipelines.nightly import NightOptions, run_night
from mtl_core.storage.location import Location

NIGHT = """
import sys
from mtl_core.pipelines.nightly import NightOptions, run_night
from mtl_core.storage.location import Location
sys.executable = sys.argv[1]
run_night(["tag_catalogue"], Location(sys.argv[2]), NightOptions())
"""


def write_driver(at: Path, line: str) -> str:
    """A program that stands for Python, and does this instead of running the driver."""
    at.write_text(f"#!/bin/sh\n{line}\n")
    at.chmod(0o755)
    return str(at)


@pytest.mark.parametrize(
    ("line", "statuses", "message"),
    [
        ("kill -40 $$", [168, 168], "the driver was ended by signal 40: Real-time signal"),  # without a name
        ("kill -9 $$", [137, 137], "the driver was ended by signal 9: Killed"),
        ("exit 1", [1, 1], "exit status 1"),
        ("echo 'error: why [exit status 2]'; exit 2", [2], "error: why"),
        ("""echo '{"event": "end", "message": "error: why [exit status 2]"}'; exit 2""", [2], "error: why"),
        ("exit 0", [0], ""),
    ],
)
def test_a_driver_that_fails_or_is_killed_is_followed_by_another(
    line: str, statuses: list[int], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "executable", write_driver(tmp_path / "driver", line))
    night = run_night(["tag_catalogue"], Location(str(tmp_path)), NightOptions(retries=1, retry_wait_s=0))
    assert [one.exit_status for one in night.tries] == statuses
    assert [one.job_id[18:] for one in night.tries] == ["", "-2"][: len(statuses)]  # behind nightly-2026-11-28
    assert night.tries[-1].message.startswith(message) and bool(message) == bool(night.tries[-1].message)


def test_a_night_counts_its_own_records_whatever_the_clock_of_another_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    runs = tmp_path / "runs"
    runs.mkdir()
    for run_id in ("20250101T000000Z-aaaaaa", "20990101T000000Z-aaaaaa"):
        (runs / f"{run_id}.json").write_text(f'{{"run_id": "{run_id}"}}')
    record = '{"run_id": "20260101T000000Z-bbbbbb", "tagged": 3, "failed": 0}'
    driver = write_driver(tmp_path / "driver", f"echo '{record}' > {runs}/20260101T000000Z-bbbbbb.json")
    monkeypatch.setattr(sys, "executable", driver)
    night = run_night(["tag_catalogue"], Location(str(tmp_path)), NightOptions(retries=0))
    assert [run["run_id"] for run in night.records] == ["20260101T000000Z-bbbbbb"]


def test_an_interrupted_night_leaves_no_driver(tmp_path: Path) -> None:
    driver = write_driver(tmp_path / "driver", f"echo $$ > {tmp_path}/draft; mv {tmp_path}/draft {tmp_path}/pid; "
                          "exec sleep 60")  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", NIGHT, driver, str(tmp_path)], env=clean, stderr=subprocess.DEVNULL
    ) as night:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        night.send_signal(signal.SIGINT)  # to this process alone
        night.wait(30)
    pid = (tmp_path / "pid").read_text().strip()
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the driver goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_night_that_is_stopped_while_it_starts_its_driver_leaves_none(number: int, tmp_path: Path) -> None:
    driver = write_driver(tmp_path / "driver", f"echo $$ > {tmp_path}/draft; mv {tmp_path}/draft {tmp_path}/pid; "
                          "exec sleep 60")  # fmt: skip
    signalled = f"""
import os, subprocess, time
from mtl_core import termination
termination.install()
start = subprocess.Popen.__init__
def start_and_signal(self, *args, **options):
    start(self, *args, **options)
    while not os.path.exists({str(tmp_path / "pid")!r}):
        time.sleep(0.05)
    os.kill(os.getpid(), {int(number)})
    time.sleep(0.2)
subprocess.Popen.__init__ = start_and_signal
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", signalled + NIGHT, driver, str(tmp_path)]
    ended = subprocess.run(command, env=clean, stderr=subprocess.PIPE, timeout=50, check=False)
    assert ended.returncode == 143 if number == signal.SIGTERM else ended.stderr.endswith(b"KeyboardInterrupt\n")
    pid, deadline = (tmp_path / "pid").read_text().strip(), time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the driver goes on"
        time.sleep(0.05)
