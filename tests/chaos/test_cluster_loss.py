"""Workers and nodes die in the middle of a run: the run goes on by itself and ends exact."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from clusters import head, node, stop
from nightly import assert_exact, count_done_shards, decode_counts, start, two_nights, wait_for
from points import TAGGING_ACTOR


def tagging_processes() -> list[int]:
    """Process ids of the actors that tag."""
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in listing.splitlines()]
    return [int(pid) for pid, *command in lines if command and command[0].startswith(TAGGING_ACTOR)]


@pytest.mark.slow
def test_a_worker_and_a_node_die_in_the_middle(tmp_path: Path) -> None:
    """Two nodes of 2 CPUs, 4 workers: a worker is killed, later a whole node, which is not replaced."""
    with head(num_cpus=2) as env:
        nights = two_nights(tmp_path, 576, env)
        out = nights.out("loss")
        with node(env["RAY_ADDRESS"], num_cpus=2) as other:
            flags = nights.command(out)
            flags[flags.index("--num-workers") + 1] = "4"
            job = start("never", "driver", flags, env)
            wait_for(lambda: len(tagging_processes()) == 4 and count_done_shards(out) >= 1)
            os.kill(tagging_processes()[0], signal.SIGKILL)
            n_done = count_done_shards(out)
            wait_for(lambda: count_done_shards(out) >= n_done + 2)
            stop(other, signal.SIGKILL)
            stdout, stderr = job.communicate(timeout=300)
            assert job.returncode == 0, stderr
            assert_exact(nights, out)
            n_repeated = sum(count - 1 for count in decode_counts(nights).values())
            summary = next(line for line in stdout.splitlines() if line.startswith("run "))
            print(f"a worker and a node killed: {summary}; {n_repeated} decodings were repeated")
