"""Stores and clusters that a job cannot reach end it with one line and status 2, in less than 30 s."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"track_id": ["a"], "uri": ["/a"]}), tmp_path / "manifest.parquet")
    return tmp_path / "manifest.parquet"


def run_job(*command: object, **environment: str) -> tuple[int, str, float]:
    """Run a job as a user does; returns its exit status, its standard error and the seconds it took."""
    start_s = time.monotonic()
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stderr, time.monotonic() - start_s


@pytest.mark.slow
def test_an_endpoint_that_does_not_answer() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    with socket.socket() as silent:  # accepts connections, but never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (9, silent.getsockname()[1]):
            endpoint = f"http://127.0.0.1:{port}"
            flags = ("--manifest", "s3://bucket/manifest.parquet", "--out", "s3://bucket/mels")
            status, stderr, wall_s = run_job("jobs/extract_mels.py", *flags, AWS_ENDPOINT_URL=endpoint, **keys)
            assert (status, stderr.count("\n")) == (2, 1), stderr
            assert endpoint in stderr and "cannot be reached" in stderr
            assert wall_s < 30


def test_a_cluster_that_does_not_answer(manifest: Path) -> None:
    flags = ("--manifest", manifest, "--out", manifest.parent / "out")
    status, stderr, wall_s = run_job("jobs/extract_mels.py", *flags, RAY_ADDRESS="127.0.0.1:9")
    assert status == 2 and stderr.count("\n") == 1 and "RAY_ADDRESS=127.0.0.1:9" in stderr, stderr
    assert wall_s < 30


def test_a_temporary_folder_whose_name_is_too_long_for_sockets(manifest: Path) -> None:
    folder = manifest.parent / ("x" * 90)
    folder.mkdir()
    flags = ("--manifest", manifest, "--out", manifest.parent / "out")
    status, stderr, _ = run_job("jobs/extract_mels.py", *flags, TMPDIR=str(folder))
    assert status == 2 and stderr.count("\n") == 1 and f"TMPDIR={folder}" in stderr, stderr


def test_wrong_credentials(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "0"},  # moto checks the keys from the first request on
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.1)
        status, stderr, wall_s = run_job(
            "jobs/build_manifest.py", "--catalogue", "s3://bucket/catalogue", "--out", tmp_path / "m.parquet",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="wrong",
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()
    assert status == 2 and stderr.count("\n") == 1 and "access denied" in stderr, stderr
    assert wall_s < 30
