"""What tests share: an S3 server behind a real connection, a local Ray, and real audio if it is beside the checkout."""

import atexit
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl_core import cli

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))  # tests/builders
AUDIO = REPOSITORY.parent / "shared" / "audio"

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
atexit.unregister(cli.leave)  # tests call jobs in this process, which ends with the status of pytest


@pytest.fixture(scope="session")
def audio() -> Path:
    """The folder of real recordings, which are not part of this project."""
    if not AUDIO.is_dir():
        pytest.skip(f"no real audio at {AUDIO}")
    return AUDIO


# Their folder is on the path only now.
from builders import credentials  # noqa: E402
from builders.identities import Iam, forget_identity, iam_server  # noqa: E402
from builders.moto import moto_server  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def hidden_credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No output and no file of the tests shows a credential."""
    with pytest.MonkeyPatch.context() as patched:
        credentials.watch_output(patched)
        yield
    credentials.assert_hidden_in_files(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of moto's S3 server; the AWS variables of this process and its children name it."""
    with moto_server() as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            **credentials.S3_KEYS,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield endpoint
        credentials.assert_hidden_in_objects(endpoint)


@pytest.fixture(scope="session")
def iam() -> Iterator[Iam]:
    """A server of moto that enforces policies."""
    with iam_server() as server:
        yield server


@pytest.fixture
def no_identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment without AWS variables; the test sets its own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_identity()
    yield monkeypatch
    forget_identity()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """A new bucket, as s3://name."""
    import s3fs

    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem(skip_instance_cache=True).call_s3("create_bucket", Bucket=name)
    return f"s3://{name}"


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new folder, once on a disk and once on S3."""
    return (
        str(tmp_path / "some place") if request.param == "disk" else request.getfixturevalue("bucket") + "/some place"
    )


@pytest.fixture(scope="session")
def untrained() -> Any:
    """A model artifact with random weights for 7 artists and 3 languages."""
    from builders.models import untrained_artifact

    return untrained_artifact()


@pytest.fixture(scope="session")
def local_ray(s3_server: str) -> Iterator[None]:
    """A Ray cluster of the tests with 4 logical CPUs; its workers inherit the address of the S3 server.

    A pipeline has one worker where a test names no number: starting a worker takes 3 CPU seconds.
    """
    import ray

    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # workers import the builders
            ray.init(address="local", num_cpus=4, include_dashboard=False, _temp_dir=folder, logging_level="ERROR")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("os.cpu_count", lambda: 1)
            yield
        ray.shutdown()
