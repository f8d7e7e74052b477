"""All jobs run one after another, on S3 only, on clusters of 1, 2 and 4 logical CPUs: none waits forever for a CPU."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.catalogue import write_catalogue

from mtl_core.storage.location import Location
from mtl_core.tables import delta

REPOSITORY = Path(__file__).parents[2]

CHAIN = """
import sys, tempfile
import ray
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.evaluate import EvaluationOptions, evaluate
from mtl_core.pipelines.extract_mels import ExtractionOptions, extract_mels
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.pipelines.train import TrainOptions, train
from mtl_core.storage.location import Location

at = Location(sys.argv[1])
with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    ray.init(address="local", num_cpus=int(sys.argv[2]), num_gpus=1, include_dashboard=False, _temp_dir=folder)
    build_manifest(at / "catalogue", at / "catalogue" / "labels.csv", at / "manifest.parquet")
    print(extract_mels(at / "manifest.parquet", at / "mels", ExtractionOptions()), flush=True)
    print(train(at / "mels", at / "model", TrainOptions(epochs=2, folds=2, num_workers=2)), flush=True)
    evaluate(at / "model", at / "mels", at / "report", EvaluationOptions(on="all", resamples=0))
    tag_catalogue(at / "manifest.parquet", at / "model", at / "tagged", TaggingOptions())
    # The cluster only claims to have a GPU: the workers of a GPU run on the CPU.
    by_gpu = TaggingOptions(use_gpu=True)
    tag_catalogue(at / "manifest.parquet", at / "model", at / "by-gpu", by_gpu, gpu_device="cpu")
    ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_cpus", [1, 2, 4])
def test_all_jobs_end_on_a_small_cluster(bucket: str, n_cpus: int) -> None:
    at = Location(bucket)
    write_catalogue(at / "catalogue", 24)
    chain = [sys.executable, "-c", CHAIN, bucket, str(n_cpus)]
    ended = subprocess.run(chain, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr[-3000:]
    by_cpu, by_gpu = (rows(at / name) for name in ("tagged", "by-gpu"))
    assert len(by_cpu) == 24
    for cpu, gpu in zip(by_cpu, by_gpu, strict=True):
        assert {name: cpu[name] for name in EQUAL} == {name: gpu[name] for name in EQUAL}
        assert np.allclose(cpu["embedding"], gpu["embedding"], atol=1e-3)
        assert cpu["artist_confidence"] == pytest.approx(gpu["artist_confidence"], abs=1e-3)


EQUAL = ("track_id", "content_id", "duration_s", "n_segments", "model_id")


def rows(root: Location) -> list[dict]:
    table = delta.open_table(root, "tags")
    assert table is not None
    return sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["track_id"])
