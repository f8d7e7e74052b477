"""Workers and nodes that die in the middle of a run: it ends by itself, exact."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from clusters import head, node, stop
from nightly import Nights, assert_exact, decoded, done_shards, start, two_nights, wait_for


def workers_of(session: int | None = None) -> list[int]:
    """The processes of the tagging actors, of one session if one is named."""
    listed = subprocess.run(["ps", "-eo", "pid=,sess=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(None, 2) for line in listed.splitlines()]
    return [
        int(pid)
        for pid, own, name in found
        if name.startswith("ray::MapWorker(MapBatches(_Actor))") and session in (None, int(own))
    ]


@pytest.mark.slow
def test_workers_and_a_node_die_in_the_middle(tmp_path: Path) -> None:
    """Two nodes of 2 CPUs, 4 workers: a worker is killed, later a whole node, and nobody comes to replace it."""
    with head(num_cpus=2) as env:
        nights: Nights = two_nights(tmp_path, 576, env)
        out = nights.out("loss")
        with node(env["RAY_ADDRESS"], num_cpus=2) as other:
            flags = nights.command(out)
            flags[flags.index("--num-workers") + 1] = "4"
            job = start("never", "driver", flags, env)
            wait_for(lambda: len(workers_of()) == 4 and done_shards(out) >= 1)
            for pid in workers_of()[:1]:
                os.kill(pid, signal.SIGKILL)
            done = done_shards(out)
            wait_for(lambda: done_shards(out) >= done + 2)
            stop(other, signal.SIGKILL)
            said, error = job.communicate(timeout=300)
            assert job.returncode == 0, error
            assert_exact(nights, out)
            twice = sum(count - 1 for count in decoded(nights).values())
            summary = next(line for line in said.splitlines() if line.startswith("run "))
            print(f"a worker and a node killed: {summary}; {twice} times a track was decoded again")
