"""A cluster that starts nodes on demand, as cluster.yaml describes one, and a cluster that never has a CPU."""

from pathlib import Path

import pytest
from clusters import growing, head
from nightly import assert_exact, run, two_nights

from mtl_core.audio.decoding.decoder_process import DECODER


@pytest.mark.slow
def test_an_autoscaling_cluster_starts_the_workers_that_are_requested(tmp_path: Path) -> None:
    nights = two_nights(tmp_path, 64, decoder=DECODER)
    out = nights.out("second night")
    with growing(tmp_path, max_nodes=2) as env:
        command = nights.command(out)
        flag = command.index("--num-workers")
        without_number = run("never", "driver", command[:flag] + command[flag + 2 :], env)
        assert without_number.returncode == 2
        assert "--num-workers N" in without_number.stderr.splitlines()[-1]
        ended = run("never", "driver", command, env, decoder=DECODER)
    assert ended.returncode == 0, ended.stderr
    assert_exact(nights, out)


@pytest.mark.slow
def test_a_cluster_that_can_hold_no_worker_is_refused(tmp_path: Path) -> None:
    nights = two_nights(tmp_path, 16, decoder=DECODER)
    out = nights.out("second night")
    with head(num_cpus=0) as env:
        ended = run("never", "driver", nights.command(out), env)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "2 workers of 1 CPU and 512 MiB of memory each: the cluster has room for 0" in ended.stderr.splitlines()[-1]
