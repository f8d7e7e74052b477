"""Two processes run the same command: one works, the other is refused. One that was paused too long changes nothing."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusters import head
from nightly import Nights, assert_exact, processes_of, rows, run, start, two_nights, wait_for
from points import (
    COMMIT,
    DELETE_PLAN,
    NEXT_SHARD_DONE,
    PLAN_TRACKS,
    SECOND_SHARD_DONE,
    TAGS_REWRITTEN,
    VERIFY_AND_MERGE,
    WRITE_LOG_ENTRY,
)

TIMES = 50
AT_ONCE = 5
WORK_S = 60


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
        f"{PLAN_TRACKS}:exit",
        SECOND_SHARD_DONE,
        f"{VERIFY_AND_MERGE}:enter",
        f"{COMMIT}:enter>{WRITE_LOG_ENTRY}:enter",  # after the last check of the lease
        f"{TAGS_REWRITTEN}>{WRITE_LOG_ENTRY}:enter",
        f"{DELETE_PLAN}:enter",
    ],
)
def test_a_run_that_was_paused_too_long_changes_nothing(nights: Nights, cluster: dict[str, str], point: str) -> None:
    out = nights.out(f"paused {abs(hash(point))}")
    paused = start(point, "pause", nights.command(out), cluster)
    wait_for(lambda: is_stopped(paused.pid))
    start_s = time.monotonic()
    successor = run("never", "driver", nights.command(out), cluster)
    assert successor.returncode == 0, successor.stderr
    wall_s = time.monotonic() - start_s
    assert wall_s > 20, "the successor waits until the lease is not renewed"
    assert_exact(nights, out)
    before = [rows(out, table) for table in ("tags", "failures")]
    os.kill(paused.pid, signal.SIGCONT)
    stdout, stderr = paused.communicate(timeout=120)
    last_line = stderr.strip().splitlines()[-1]
    print(f"{point}: successor ended after {wall_s:.0f} s; the paused run ended with {paused.returncode}: {last_line}")
    assert_exact(nights, out)
    assert [rows(out, table) for table in ("tags", "failures")] == before
    if not point.startswith(DELETE_PLAN):  # there only the plan was left to delete
        assert paused.returncode == 1 and "Traceback" not in stderr and last_line.startswith("failed: "), (
            stdout + stderr
        )


@pytest.mark.slow
def test_a_second_command_is_refused_in_one_line(nights: Nights, cluster: dict[str, str]) -> None:
    out = nights.out("two at once")
    first = start(NEXT_SHARD_DONE, "dawdle", nights.command(out), cluster)
    wait_for(lambda: (out / "_lease.json").exists())
    start_s = time.monotonic()
    second = run("never", "driver", nights.command(out), cluster)
    wall_s = time.monotonic() - start_s
    print(f"refused after {wall_s:.1f} s: {second.stderr.strip()}")
    assert second.returncode == 4 and second.stderr.startswith("busy: ") and second.stderr.count("\n") == 1
    assert wall_s < 30
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == 0, stderr
    assert_exact(nights, out)


def two_at_once(nights: Nights, number: int) -> str:
    """Start the same night twice at the same moment, each on a local Ray of its own; gives the line of the refused."""
    out = nights.out(f"started twice {number}")
    environment = {"DAWDLE_S": str(WORK_S)}
    both = [start(NEXT_SHARD_DONE, "dawdle", nights.command(out), environment) for _ in range(2)]
    with_cluster = set()

    def one_ended() -> bool:
        with_cluster.update(
            process.pid for process in both if any("gcs_server" in line for line in processes_of(process.pid))
        )
        return any(process.poll() is not None for process in both)

    wait_for(one_ended, 120)
    refused, winner = sorted(both, key=lambda process: process.poll() is None)
    begin_s = time.monotonic()
    _, refusal = refused.communicate()
    _, errors = winner.communicate(timeout=300)
    assert (refused.returncode, winner.returncode) == (4, 0), refusal + errors
    assert refusal.startswith("busy: ") and refusal.count("\n") == 1
    assert with_cluster <= {winner.pid}, "the refused one started a cluster"
    assert time.monotonic() - begin_s > WORK_S / 2, "the refused one ended while the other was at work"
    assert_exact(nights, out)
    return refusal.strip()


@pytest.mark.slow
def test_of_two_nights_that_start_at_once_one_works(nights: Nights) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lines = list(pool.map(lambda number: two_at_once(nights, number), range(TIMES)))
    print(f"{len(lines)} of {TIMES} times one ran and one ended with 4, e.g. {lines[0]}")
