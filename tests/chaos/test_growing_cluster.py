"""A cluster that has no room until some is asked for, as the one of cluster.yaml, and one that never has it."""

from pathlib import Path

import pytest
from clusters import growing, head
from nightly import assert_exact, run, two_nights


@pytest.mark.slow
def test_workers_are_asked_for_and_come(tmp_path: Path) -> None:
    nights = two_nights(tmp_path, 64, decoder="mtl_core.audio.decoder_child")
    out = nights.out("second night")
    with growing(tmp_path, most_nodes=2) as env:
        command = nights.command(out)
        asking = command.index("--num-workers")
        nobody_said = run("never", "driver", command[:asking] + command[asking + 2 :], env)
        assert nobody_said.returncode == 2
        assert nobody_said.stderr.endswith("grows on demand: say to how many workers, --num-workers N\n")
        ended = run("never", "driver", command, env, decoder="mtl_core.audio.decoder_child")
    assert ended.returncode == 0, ended.stderr
    assert_exact(nights, out)


@pytest.mark.slow
def test_a_cluster_that_can_hold_no_worker_is_refused(tmp_path: Path) -> None:
    nights = two_nights(tmp_path, 16, decoder="mtl_core.audio.decoder_child")
    out = nights.out("second night")
    with head(num_cpus=0) as env:
        ended = run("never", "driver", nights.command(out), env)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "2 workers of 1 CPU each: the cluster has room for 0" in ended.stderr.splitlines()[-1]
