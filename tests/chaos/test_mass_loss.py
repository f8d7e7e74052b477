"""Most of a cluster is lost at once and comes back, or another job fills its object store: the night ends exact.

`REPEATS=10 python -m pytest -m slow tests/chaos/test_mass_loss.py -s` repeats the loss ten times.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import ray
from clusters import head, joined, node
from nightly import (
    HERE,
    Nights,
    assert_exact,
    count_done_shards,
    decode_counts,
    run,
    start,
    two_nights,
    wait_for,
)

AWAY_S = 60.0
N = 1536  # more than the node that stays tags while the others are away
STORE_BYTES = 80_000_000  # the least that Ray allows


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return two_nights(tmp_path_factory.mktemp("nights"), N)


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(int(os.environ.get("REPEATS", "1"))))
def test_three_of_four_nodes_die_at_once_and_come_back_after_a_minute(nights: Nights, repeat: int) -> None:
    """Nodes of one CPU each; the driver runs on the one that stays."""
    out = nights.out(f"loss {repeat}")
    (nights.root / "decoded.log").unlink(missing_ok=True)
    command = nights.command(out)
    command[command.index("--num-workers") + 1] = "4"
    with head(num_cpus=1) as env, joined(env), contextlib.ExitStack() as nodes:
        lost = [added(nodes, env) for _ in range(3)]
        job = start("never", "driver", command, env)
        wait_for(lambda: count_done_shards(out) >= 2, timeout_s=300)
        for process in lost:
            os.killpg(process.pid, signal.SIGKILL)
        n_done = count_done_shards(out)
        time.sleep(AWAY_S)
        assert job.poll() is None, "the night ended while the nodes were away"
        n_meanwhile = count_done_shards(out) - n_done
        for _ in lost:
            nodes.enter_context(node(env["RAY_ADDRESS"], num_cpus=1))
        wait_for(lambda: count_nodes() > 1, timeout_s=300)
        assert job.poll() is None, "the night ended before a node came back"
        stdout, stderr = job.communicate(timeout=600)
        assert job.returncode == 0, stderr
    assert_exact(nights, out)
    n_repeated = sum(count - 1 for count in decode_counts(nights).values())
    summary = next(line for line in stdout.splitlines() if line.startswith("run "))
    print(
        f"three of four nodes lost at {n_done} shards, {n_meanwhile} more while they were away: {summary}; "
        f"{n_repeated} decodings were repeated",
        flush=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--use-gpu"]], ids=["cpu", "gpu"])
def test_an_object_store_that_is_full(nights: Nights, flags: list[str]) -> None:
    """Another job holds all of it in use, so nothing can be spilled. With GPUs all segments pass through the store."""
    out = nights.out(f"full {len(flags)}")
    with head(2, "--num-gpus=1", object_store_bytes=STORE_BYTES) as env:
        filler = subprocess.Popen(
            [sys.executable, str(HERE / "full_store.py")], env=os.environ | env, stdout=subprocess.PIPE, text=True
        )
        assert filler.stdout is not None
        try:
            filled = filler.stdout.readline()
            assert float(filled) > 0.9, filled
            ended = run("never", "driver", [*nights.command(out), *flags], env, timeout_s=400)
            assert filler.poll() is None, "the store was not full to the end"
        finally:
            filler.kill()
            filler.wait()
    assert ended.returncode == 0, ended.stderr
    assert_exact(nights, out)
    print(f"{100 * float(filled):.0f}% of the object store held: {ended.stdout}", flush=True)


def added(nodes: contextlib.ExitStack, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A node of one CPU that has joined. Nodes that start on one machine at the same time may take the same ports."""
    n_before = count_nodes()
    while True:
        process = nodes.enter_context(node(env["RAY_ADDRESS"], num_cpus=1))
        wait_for(lambda ended=process.poll: count_nodes() > n_before or ended() is not None, timeout_s=300)
        if process.poll() is None:  # else it has given up: Ray allows a node half a minute to start
            return process


def count_nodes() -> int:
    """The nodes of the cluster that are alive."""
    return sum(node["Alive"] for node in ray.nodes())
