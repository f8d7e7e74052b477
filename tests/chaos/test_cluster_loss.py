"""Workers and nodes die in the middle of a run: the run goes on by itself and ends exact."""

import os
import signal
from pathlib import Path

import pytest
from clusters import CLUSTER, head, node, stop, tagging_processes
from nightly import assert_exact, count_done_shards, decode_counts, start, two_nights, wait_for


@pytest.mark.slow
def test_a_worker_and_a_node_die_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of 2 CPUs, 4 workers: a worker is killed, later a whole node, which is not replaced."""
    monkeypatch.setenv(CLUSTER, tmp_path.name)
    with head(num_cpus=2) as env:
        nights = two_nights(tmp_path, 576, env)
        out = nights.out("loss")
        with node(env["RAY_ADDRESS"], num_cpus=2) as other:
            flags = nights.command(out)
            flags[flags.index("--num-workers") + 1] = "4"
            job = start("never", "driver", flags, env)
            wait_for(lambda: len(tagging_processes(tmp_path.name)) == 4 and count_done_shards(out) >= 1)
            os.kill(tagging_processes(tmp_path.name)[0], signal.SIGKILL)
            n_done = count_done_shards(out)
            wait_for(lambda: count_done_shards(out) >= n_done + 2)
            stop(other, signal.SIGKILL)
            stdout, stderr = job.communicate(timeout=300)
            assert job.returncode == 0, stderr
            assert_exact(nights, out)
            n_repeated = sum(count - 1 for count in decode_counts(nights).values())
            summary = next(line for line in stdout.splitlines() if line.startswith("run "))
            print(f"a worker and a node killed: {summary}; {n_repeated} decodings were repeated")
