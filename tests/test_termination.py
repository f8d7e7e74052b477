"""A job that gets SIGTERM gives its lease up and ends with status 143 within two seconds, whatever it is doing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_core.storage import lease
from mtl_core.storage.location import Location

JOB = """
import ctypes, sys, time
from dataclasses import dataclass
from mtl_core import cli
from mtl_core.storage import lease
from mtl_core.storage.location import Location

@dataclass
class Options:
    out: str
    wait: str

def main(options):
    with lease.acquire(Location(options.out)) as lock:
        if options.wait == "in a renewal":
            lock._lock.acquire()
        print("held", flush=True)
        if options.wait == "in a system call":
            ctypes.CDLL(None).sleep(60)
        time.sleep(60)

cli.main(main, Options)
"""


def stop(root: str, wait: str) -> tuple[float, int, str]:
    """Start the job, stop it while it waits; the seconds that it took, its status, and the last line of its stderr."""
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, "--out", root, "--wait", wait],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert job.stdout is not None and job.stdout.readline() == "held\n"
    job.send_signal(signal.SIGTERM)
    start = time.monotonic()
    _, errors = job.communicate(timeout=30)
    return time.monotonic() - start, job.returncode, errors


def test_the_lease_is_given_up(root: str) -> None:
    took_s, status, errors = stop(root, "in python")
    assert (status, errors) == (143, "stopped by SIGTERM: the same command resumes [exit status 143]\n")
    assert took_s < 2
    assert (Location(root) / lease.LEASE_FILE).read_with_etag() is None


@pytest.mark.parametrize("wait", ["in a system call", "in a renewal"])
def test_a_job_that_is_stuck_ends_too_and_the_next_one_takes_its_lease_over(root: str, wait: str) -> None:
    took_s, status, _ = stop(root, wait)
    assert status == 143 and took_s < 2.5
    start = time.monotonic()
    with lease.acquire(Location(root)):
        assert time.monotonic() - start < 2
