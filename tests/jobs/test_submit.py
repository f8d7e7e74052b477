"""`ray job submit` runs every job: from a clean checkout, on a Ray head with token authentication, on S3."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.catalogue import BAD, write_catalogue
from builders.heads import RAY, head_with_job_api
from builders.models import save

from mtl_core.dataset.vocabulary import TASKS
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.inference.openvino_engine import load_cpu_model
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


#: Every job in the order of a first week, as words of a command line; {b} is a bucket.
JOBS = """
make_demo_catalogue --out {b}/catalogue --languages 2 --artists-per-language 2 --songs-per-artist 4 --song-s 20
build_manifest --catalogue {b}/catalogue --labels {b}/catalogue/labels.csv --out {b}/manifest.parquet
extract_mels --manifest {b}/manifest.parquet --out {b}/mels
train --mels {b}/mels --out {b}/model --recipe demo --epochs 2 --folds 2 --num-workers 2
evaluate --model {b}/model --mels {b}/mels --out {b}/report
promote --current {b}/current.json --model {b}/model
tag_catalogue --manifest {b}/manifest.parquet --model {b}/current.json --out {b}/tagged --limit 9
nightly --manifest {b}/manifest.parquet --model {b}/current.json --out {b}/tagged
status --out {b}/tagged
find_neighbours --tags {b}/tagged --out {b}/neighbours --k 2
enrol --model {b}/model --task language --remove LANGUAGE --out {b}/model-2
maintain_tables --out {b}/tagged --compact
run_experiment --mels {b}/mels --out {b}/table --recipes demo --epochs 1 --folds 0 --seeds 0 --tasks both
"""


@pytest.mark.slow
def test_every_job_is_submitted_and_the_tags_are_those_of_a_local_ray(
    checkout: Path, s3_server: str, bucket: str, tmp_path: Path
) -> None:
    commands = [line.format(b=bucket).split() for line in JOBS.strip().splitlines()]
    assert {name for name, *_ in commands} == {file.stem for file in (REPOSITORY / "jobs").glob("*.py")}
    with head_with_job_api(nodes=1) as cluster:
        for name, *flags in commands:
            if "LANGUAGE" in flags:
                (language, *_) = load_cpu_model(Location(bucket) / "model").vocabularies["language"].labels
                flags[flags.index("LANGUAGE")] = language
            submit(cluster, checkout, "python", f"jobs/{name}.py", *flags)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    local = [sys.executable, "-m", "mtl_core", "tag_catalogue", "--manifest", f"{bucket}/manifest.parquet"]
    local += ["--model", f"{bucket}/model", "--out", str(tmp_path / "tagged")]
    subprocess.run(local, cwd=checkout, env=environment, check=True, capture_output=True, timeout=300)
    columns = ["track_id", "content_id", "n_segments", "model_id", *TASKS, *(f"{task}_confidence" for task in TASKS)]
    tables = []
    for out in (Location(bucket) / "tagged", Location(str(tmp_path / "tagged"))):
        table = delta.open_table(out, "tags")
        assert table is not None
        tables.append(table.to_pyarrow_table(columns=columns).sort_by("track_id"))
    assert len(tables[0]) == 16 and tables[0].equals(tables[1])
