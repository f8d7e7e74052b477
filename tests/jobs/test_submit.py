"""`ray job submit` runs the nightly job: from a clean checkout, on a Ray head with token authentication, on S3."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.catalogue import BAD, write_catalogue
from builders.models import save

from mtl_core.inference.artifact import Artifact
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location
from mtl_core.tables import delta

REPOSITORY = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    """A Ray head that requires a token; yields the environment variables of a client."""
    dashboard = free_port()
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-this-test-alone-0123456789"}
        head = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}", f"--temp-dir={folder}",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
             f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}"],
            env=os.environ | environment | {"PATH": f"{RAY.parent}:{os.environ['PATH']}"},  # has `python`
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        address = f"http://127.0.0.1:{dashboard}"
        yield environment | {"RAY_ADDRESS": address, "RAY_API_SERVER_ADDRESS": address}
        head.terminate()  # with --block it ends its children too
        try:
            head.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        deadline = time.monotonic() + 20
        while (leftovers := command_lines_with(folder)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not leftovers, "the head left processes behind"


def command_lines_with(text: str) -> list[str]:
    """The command lines of running processes that contain `text`."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        if text in line:
            command_lines.append(line)
    return command_lines


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
