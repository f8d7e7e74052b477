"""Two who run the same command: one works, the other says so; one that slept too long changes nothing any more."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import head
from nightly import Nights, assert_exact, rows, run, start, two_nights, wait_for
from test_kills import COMMIT, LOG, PLANNING, PROGRESS


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with head(num_cpus=4) as env:
        yield env


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> Nights:
    return two_nights(tmp_path_factory.mktemp("nights"), 96, cluster)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        f"{PLANNING}plan_tracks:exit",
        f"{PROGRESS}:2",
        f"{COMMIT}verify_and_merge:enter",
        f"{COMMIT}commit_run:enter>{LOG}:enter",  # past the last look at the lease
        f"{COMMIT}rewrite_without@tags-kept:exit>{LOG}:enter",
        "mtl_core.storage.work_plan:delete_plan:enter",
    ],
)
def test_who_slept_too_long_changes_nothing(nights: Nights, cluster: dict[str, str], point: str) -> None:
    out = nights.out(f"paused {abs(hash(point))}")
    paused = start(point, "pause", nights.command(out), cluster)
    wait_for(lambda: is_stopped(paused.pid))
    begun = time.monotonic()
    successor = run("never", "driver", nights.command(out), cluster)
    assert successor.returncode == 0, successor.stderr
    waited = time.monotonic() - begun
    assert waited > 20
    assert_exact(nights, out)
    before = [rows(out, name) for name in ("tags", "failures")]
    os.kill(paused.pid, signal.SIGCONT)
    said, error = paused.communicate(timeout=120)
    last = error.strip().splitlines()[-1]
    print(f"{point}: successor done after {waited:.0f} s; the paused one ended with {paused.returncode}: {last}")
    assert_exact(nights, out)
    assert [rows(out, name) for name in ("tags", "failures")] == before
    if "delete_plan" not in point:  # there all was done but the tidying
        assert paused.returncode == 1 and "Traceback" not in error and last.startswith("failed: "), said + error


@pytest.mark.slow
def test_a_second_command_ends_in_one_line(nights: Nights, cluster: dict[str, str]) -> None:
    out = nights.out("two at once")
    first = start(f"{PROGRESS}:1", "dawdle", nights.command(out), cluster)
    wait_for(lambda: (out / "_lease.json").exists())
    begun = time.monotonic()
    second = run("never", "driver", nights.command(out), cluster)
    waited = time.monotonic() - begun
    print(f"refused after {waited:.1f} s: {second.stderr.strip()}")
    assert second.returncode == 2 and second.stderr.startswith("error: ") and second.stderr.count("\n") == 1
    assert waited < 30
    _, error = first.communicate(timeout=120)
    assert first.returncode == 0, error
    assert_exact(nights, out)
