import os

import pytest

from mtl_core.errors import InputError
from mtl_core.pipelines.workers import cluster


@pytest.mark.usefixtures("local_ray")  # of 4 logical CPUs
def test_the_number_of_workers_is_limited_by_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.require_workers(4) == 4
    assert cluster.require_workers(8, num_cpus=0.5) == 8
    assert cluster.require_workers(None) == min(4, os.cpu_count() or 1)
    assert capsys.readouterr().err == ""
    assert cluster.require_workers(5) == 5  # a node may come back
    assert "5 workers of 1 CPU each: the cluster has room for 4 (4 CPUs, 0 GPUs in all)" in capsys.readouterr().err
    with pytest.raises(InputError, match="5 workers of 1 CPU each: the cluster has room for 4"):
        cluster.require_workers(5, all_at_once=True)
    with pytest.raises(InputError, match="1 workers of 5 CPU each: the cluster has room for 0"):
        cluster.require_workers(None, num_cpus=5)
    assert [cluster.cpus_per_worker(workers) for workers in (1, 4, 5, 8, 9, 40)] == [1, 1, 0.5, 0.5, 0.25, 0.1]
    with pytest.raises(InputError, match=r"41 workers of 0\.1 CPU each: the cluster has room for 40"):
        cluster.cpus_per_worker(41)
