import os

import pytest

from mtl_core.failures import InputError
from mtl_core.pipelines import cluster


@pytest.mark.usefixtures("local_ray")  # of 4 logical CPUs
def test_room_is_what_the_cluster_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.room(4) == 4
    assert cluster.room(8, num_cpus=0.5) == 8
    assert cluster.room(None) == min(4, os.cpu_count() or 1)
    assert capsys.readouterr().err == ""
    assert cluster.room(5) == 5  # a node may come back
    assert "5 workers of 1 CPU each: the cluster has room for 4 (4 CPUs, 0 GPUs in all)" in capsys.readouterr().err
    with pytest.raises(InputError, match="5 workers of 1 CPU each: the cluster has room for 4"):
        cluster.room(5, all_at_once=True)
    with pytest.raises(InputError, match="1 workers of 5 CPU each: the cluster has room for 0"):
        cluster.room(None, num_cpus=5)
