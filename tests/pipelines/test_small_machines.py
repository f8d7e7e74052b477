"""The whole chain, on S3 alone, ends on clusters of 1, 2 and 4 logical CPUs: nothing starves anything."""

import subprocess
import sys
from pathlib import Path

import pytest
from catalogue import write_catalogue

from mtl_core import tables
from mtl_core.storage import Location

REPOSITORY = Path(__file__).parents[2]

CHAIN = """
import sys, tempfile
import ray
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.evaluate import evaluate
from mtl_core.pipelines.extract_mels import Extraction, extract_mels
from mtl_core.pipelines.tag_catalogue import Tagging, tag_catalogue
from mtl_core.pipelines.train import train
from mtl_core.storage import Location

at = Location(sys.argv[1])
with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    ray.init(address="local", num_cpus=int(sys.argv[2]), include_dashboard=False, _temp_dir=folder)
    build_manifest(at / "catalogue", at / "catalogue" / "labels.csv", at / "manifest.parquet")
    print(extract_mels(at / "manifest.parquet", at / "mels", Extraction()), flush=True)
    print(train(mels=at / "mels", out=at / "model", epochs=2, num_workers=2), flush=True)
    evaluate(model=at / "model", mels=at / "mels", out=at / "report", on="all", resamples=0)
    tag_catalogue(at / "manifest.parquet", at / "model", at / "tagged", Tagging())
    ray.shutdown()
"""


@pytest.mark.parametrize(
    "n_cpus", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_the_whole_chain_ends(bucket: str, n_cpus: int) -> None:
    at = Location(bucket)
    write_catalogue(at / "catalogue", 24)
    chain = [sys.executable, "-c", CHAIN, bucket, str(n_cpus)]
    ended = subprocess.run(chain, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr[-3000:]
    tags = tables.open_table(at / "tagged", "tags")
    assert tags is not None and tags.to_pyarrow_table().num_rows == 24
