import os
from pathlib import Path

import numpy as np
import pytest
import ray
from builders.catalogue import write_audio
from builders.models import save

from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.errors import InputError
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.pipelines.workers import worker_capacity
from mtl_core.pipelines.workers.worker_capacity import WorkerOptions, Workers, find_workers
from mtl_core.storage.location import Location


@pytest.mark.usefixtures("local_ray")  # of 4 logical CPUs
def test_the_number_of_workers_is_limited_by_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker_capacity.require_workers(4) == 4
    assert worker_capacity.require_workers(8, num_cpus=0.5) == 8
    assert worker_capacity.require_workers(None) == min(4, os.cpu_count() or 1)
    assert capsys.readouterr().err == ""
    assert worker_capacity.require_workers(5) == 5  # a node may come back
    assert "5 workers of 1 CPU each: the cluster has room for 4 (4 CPUs, 0 GPUs in all)" in capsys.readouterr().err
    with pytest.raises(InputError, match="5 workers of 1 CPU each: the cluster has room for 4"):
        worker_capacity.require_workers(5, all_at_once=True)
    with pytest.raises(InputError, match="1 workers of 5 CPU each: the cluster has room for 0"):
        worker_capacity.require_workers(None, num_cpus=5)
    assert [worker_capacity.cpus_per_worker(workers) for workers in (1, 4, 5, 8, 9, 40)] == [1, 1, 0.5, 0.5, 0.25, 0.1]
    with pytest.raises(InputError, match=r"41 workers of 0\.1 CPU each: the cluster has room for 40"):
        worker_capacity.cpus_per_worker(41)


@pytest.mark.usefixtures("local_ray")
def test_workers_request_memory_and_one_always_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = ray.nodes()
    offered = int(node["Resources"]["memory"])
    workers = find_workers(WorkerOptions(num_workers=2))
    assert workers == Workers(2, 512 * 2**20)
    third_mib = offered // 3 // 2**20
    few = find_workers(WorkerOptions(num_workers=3, worker_memory_mib=third_mib))
    assert few == Workers(3, third_mib * 2**20)
    assert capsys.readouterr().err == ""
    assert find_workers(WorkerOptions(num_workers=4, worker_memory_mib=third_mib)).count == 4  # the fourth waits
    assert (
        f"4 workers of 1 CPU and {third_mib} MiB of memory each: the cluster has room for 3" in capsys.readouterr().err
    )
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert find_workers(WorkerOptions(worker_memory_mib=third_mib)).count == 3
    assert f"CPUs for 4 workers, and memory for 3 of {third_mib} MiB" in capsys.readouterr().err
    alone = find_workers(WorkerOptions(worker_memory_mib=2 * offered // 2**20))
    assert alone == Workers(1, offered)
    assert "no node offers more than" in capsys.readouterr().err
    for memory in (0, -1):
        with pytest.raises(ValueError, match=f"worker memory must be 1 MiB or more, got {memory}"):
            WorkerOptions(worker_memory_mib=memory)
    assert WorkerOptions().decoder_growth_bytes() == DecoderLimits.growth_bytes


@pytest.mark.usefixtures("local_ray")
def test_a_worker_starts_on_a_node_with_too_little_memory(tmp_path: Path, untrained: Artifact) -> None:
    at = Location(str(tmp_path))
    write_audio(at / "catalogue" / "song.wav", np.zeros((16_000, 1)), 16_000)
    build_manifest(at / "catalogue", None, at / "manifest.parquet")
    options = TaggingOptions(worker_memory_mib=1 << 20)
    tagged = tag_catalogue(at / "manifest.parquet", save(untrained, at / "model"), at / "out", options)
    assert [run["tagged"] for run in tagged.runs] == [1]
