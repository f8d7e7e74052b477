"""`ray job submit` runs the nightly job: from a clean checkout, on a Ray head with token authentication, on S3."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.catalogue import BAD, write_catalogue
from builders.heads import RAY, head_with_job_api
from builders.models import save

from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location
from mtl_core.tables import delta

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that git tracks or would track, and of no other file."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (REPOSITORY / name).is_file():
            (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / "checkout" / name)
    return tmp_path / "checkout"


@pytest.fixture
def cluster(s3_server: str) -> Iterator[dict[str, str]]:
    with head_with_job_api() as environment:
        yield environment


def submit(cluster: dict[str, str], checkout: Path, *command: str) -> str:
    """Repeat `ray job submit` until the head takes the job; returns what the job printed."""
    deadline = time.monotonic() + 120
    while True:
        ended = subprocess.run(
            [RAY, "job", "submit", "--working-dir", ".", "--", *command],
            cwd=checkout,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | cluster,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if ended.returncode == 0 or "submitted successfully" in ended.stdout or time.monotonic() > deadline:
            assert ended.returncode == 0, ended.stdout + ended.stderr
            return ended.stdout
        time.sleep(1)


def test_a_submitted_job_tags_the_catalogue(
    checkout: Path, cluster: dict[str, str], bucket: str, untrained: Artifact
) -> None:
    root = Location(bucket)
    write_catalogue(root / "catalogue", 6)
    build_manifest(root / "catalogue", None, root / "manifest.parquet")
    save(untrained, root / "model")
    printed = submit(
        cluster, checkout,
        "python", "jobs/tag_catalogue.py", "--manifest", f"{bucket}/manifest.parquet", "--model", f"{bucket}/model",
        "--out", f"{bucket}/tagged", "--max-failed-share", "0.5",
    )  # fmt: skip
    assert "10 planned = 6 tagged + 4 failed" in printed
    table = delta.open_table(root / "tagged", "tags")
    assert table is not None and table.to_pyarrow_table().num_rows == 6
    failures = delta.open_table(root / "tagged", "failures")
    assert failures is not None and set(failures.to_pyarrow_table()["track_id"].to_pylist()) == set(BAD)
