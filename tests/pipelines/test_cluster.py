import os

import pytest

from mtl_core.failures import InputError
from mtl_core.pipelines import cluster


@pytest.mark.usefixtures("local_ray")  # of 4 logical CPUs
def test_a_cluster_that_does_not_grow_has_room_for_what_it_holds() -> None:
    assert cluster.room(4) == 4
    assert cluster.room(None) == min(4, os.cpu_count() or 1)
    with pytest.raises(InputError, match=r"5 workers of 1 CPU each: the cluster has room for 4 \(4 CPUs"):
        cluster.room(5)
    with pytest.raises(InputError, match="2 workers of 3 CPU each: the cluster has room for 1"):
        cluster.room(2, num_cpus=3)
    assert cluster.room(8, num_cpus=0.5) == 8
