"""`nightly` ends with the driver's own exit status, on a cluster and on this machine, and resumes a run that failed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
from builders.catalogue import write_audio, write_catalogue
from builders.heads import RAY, head_with_job_api, processes_with, wait_until_it_answers
from builders.models import save

from mtl_core import cli, configuration
from mtl_core.inference.artifacts.artifact import Artifact
from mtl_core.jobs import nightly, tag_catalogue
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.pipelines.nightly import Try
from mtl_core.storage import lease
from mtl_core.storage.location import Location
from mtl_core.tables import delta

REPOSITORY = Path(__file__).parents[2]
HERE: dict[str, str] = {}  # without a cluster


def start(client: dict[str, str], at: Path, *flags: str, out: str = "tagged") -> subprocess.Popen[str]:
    """Start `nightly` on the catalogue of a folder."""
    command = ["--manifest", at / "manifest.parquet", "--model", at / "model", "--out", at / out, "--num-workers", "2"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "mtl_core", "nightly", *map(str, command), "--retry-wait-s", "0", *flags],
        cwd=REPOSITORY,
        env=clean | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPOSITORY)} | client,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(client: dict[str, str], at: Path, *flags: str, out: str = "tagged") -> tuple[int, str, str]:
    """Its exit status, stdout and stderr."""
    process = start(client, at, *flags, out=out)
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, untrained: Artifact) -> Path:
    """6 tracks that can be tagged, 4 that cannot, and a model."""
    at = tmp_path_factory.mktemp("a night")
    write_catalogue(Location(str(at / "catalogue")), 6)
    build_manifest(Location(str(at / "catalogue")), None, Location(str(at / "manifest.parquet")))
    save(untrained, Location(str(at / "model")))
    return at


@pytest.fixture(scope="module")
def long_night(tmp_path_factory: pytest.TempPathFactory, untrained: Artifact) -> Path:
    """Tracks that keep two workers busy for some seconds."""
    import numpy as np

    at = tmp_path_factory.mktemp("long")
    noise_NC = 0.1 * np.random.default_rng(7).standard_normal((8 * 16_000, 1))
    for number in range(400):
        write_audio(Location(str(at / "catalogue" / f"{number:03}.wav")), noise_NC, 16_000)
    build_manifest(Location(str(at / "catalogue")), None, Location(str(at / "manifest.parquet")))
    save(untrained, Location(str(at / "model")))
    return at


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster whose nodes have another `mtl_core` installed, which fails."""
    other = tmp_path_factory.mktemp("other")
    (other / "mtl_core").mkdir()
    (other / "mtl_core" / "__init__.py").write_text("raise SystemExit(99)")
    with head_with_job_api(PYTHONPATH=str(other)) as environment:
        wait_until_it_answers(environment)
        yield environment


def driver_of(at: Path, out: str) -> int:
    """The process id of the driver that writes to a folder, once its first shards are complete."""
    deadline = time.monotonic() + 120
    while not list((at / out / "_run").glob("*/done-*")):
        assert time.monotonic() < deadline, "no shard is complete"
        time.sleep(0.05)
    (driver,) = (
        pid for pid, line in processes_with("mtl_core tag_catalogue", str(at / out)).items() if "sh -c" not in line
    )
    return driver


def assert_all_tagged(at: Path, out: str) -> None:
    table = delta.open_table(Location(str(at / out)), "tags")
    assert table is not None
    ids = table.to_pyarrow_table(columns=["track_id"])["track_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 400
    assert not (at / out / lease.LEASE_FILE).exists() and not list((at / out / "_run").glob("*/*"))


def test_the_flags_of_a_driver_are_those_of_the_night() -> None:
    given: list[Any] = [
        "--manifest", "/m", "--model", "/x y", "--out", "s3://b/o", "--max-failed-share", "0.5", "--retry-failed",
        "--limit", "3", "--allow-uri-prefix", "s3://b", "/c d", "--export-parquet", "/e", "--exit", "never",
    ]  # fmt: skip
    options = tyro.cli(nightly.Options, args=[*given, "--retries", "5", "--name", "n", "--json"])
    flags = configuration.flags_of(vars(options), tag_catalogue.Options)
    assert tyro.cli(tag_catalogue.Options, args=flags) == tyro.cli(tag_catalogue.Options, args=given)


@pytest.mark.parametrize(
    ("exit_status", "resumes"), [(0, False), (1, True), (2, False), (3, False), (4, False), (137, True), (143, False)]
)
def test_only_what_may_end_otherwise_is_resumed(exit_status: int, resumes: bool) -> None:
    assert Try(job_id="a", exit_status=exit_status, message="", wall_s=1.0).may_resume == resumes


def test_wrong_inputs_of_the_driver_end_the_night_here_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--manifest", "m.parquet", "--model", "nothing", "--out", "out", "--json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nightly", *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main(nightly.main, nightly.Options)
    stdout, stderr = capfd.readouterr()
    message = stderr.splitlines()[-1].removesuffix(" [exit status 2]")
    night = json.loads(stdout)
    assert ended.value.code == 2 and message.startswith("error: ") and str(tmp_path / "nothing") in message
    assert [(one["exit_status"], one["message"]) for one in night["tries"]] == [(2, message)]
    assert night["exit_status"] == 2 and night["records"] == []


@pytest.mark.slow
@pytest.mark.parametrize("on", ["here", "cluster"])
def test_each_status_where_it_is_due(folder: Path, on: str, request: pytest.FixtureRequest) -> None:
    client = HERE if on == "here" else request.getfixturevalue("client")
    status, stdout, stderr = run(client, folder, "--json", out=on)
    night = json.loads(stdout)
    assert status == 3, stderr
    assert stderr.endswith("[exit status 3]\n") and "4 of 10 tracks" in stderr
    assert [(run["planned"], run["tagged"], run["failed"]) for run in night["records"]] == [(10, 6, 4)]
    status, stdout, stderr = run(client, folder, "--accept-failures", out=on)
    assert status == 0 and stdout.count("\n") == 1 and ": exit status 0; 0 tagged" in stdout, stdout + stderr
    status, stdout, stderr = run(client, folder, "--manifest", str(folder / "catalogue" / "labels.csv"), out=on)
    assert status == 2 and stdout.count("\n") == 1 and "exit status 2 (error: " in stdout, stdout + stderr
    with lease.acquire(Location(str(folder / on))):
        status, stdout, stderr = run(client, folder, out=on)
    assert status == 4 and "exit status 4 (busy: " in stdout, stdout + stderr


@pytest.mark.slow
@pytest.mark.parametrize("on", ["here", "cluster"])
def test_as_json_the_lines_of_the_driver_are_events_too(folder: Path, on: str, request: pytest.FixtureRequest) -> None:
    client = HERE if on == "here" else request.getfixturevalue("client")
    # The variables of this process are not those of the cluster; the driver gets what they say all the same.
    variables = {"MTL_LOG_FORMAT": "json", "MTL_MAX_FAILED_SHARE": "0.1"}
    status, stdout, stderr = run(client | variables, folder, "--json", out=f"json {on}")
    events = [json.loads(line) for line in stderr.splitlines()]
    (one,) = json.loads(stdout)["tries"]
    assert status == 3 and one["message"] == "done, but too many tracks failed", stderr
    driver = [event["event"] for event in events if event["event"] in ("planned", "commit", "end")]
    assert driver == ["planned", "commit", "end", "end"]
    assert any("--max-failed-share allows 10.0%" in event.get("message", "") for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["here", "cluster"])
def test_a_killed_driver_is_followed_by_one_that_resumes(
    long_night: Path, on: str, request: pytest.FixtureRequest
) -> None:
    client = HERE if on == "here" else request.getfixturevalue("client")
    night = start(client, long_night, "--json", out=on)
    os.kill(driver_of(long_night, on), signal.SIGKILL)
    stdout, stderr = night.communicate(timeout=300)
    assert night.returncode == 0, stderr
    tries = json.loads(stdout)["tries"]
    assert [one["exit_status"] for one in tries] == [137, 0] and tries[1]["job_id"] != tries[0]["job_id"]
    assert_all_tagged(long_night, on)


@pytest.mark.slow
def test_a_stopped_job_ends_the_night_with_143(client: dict[str, str], long_night: Path) -> None:
    night = start(client, long_night, out="stopped")
    driver_of(long_night, "stopped")
    line = night.stderr.readline()  # type: ignore[union-attr]
    subprocess.run([RAY, "job", "stop", line.split()[0]], env=os.environ | client, check=True, capture_output=True)
    stdout, stderr = night.communicate(timeout=120)
    assert night.returncode == 143 and stderr.endswith("[exit status 143]\n"), stdout + stderr
    assert not (long_night / "stopped" / lease.LEASE_FILE).exists()


@pytest.mark.slow
@pytest.mark.parametrize("on", ["here", "cluster"])
def test_sigterm_stops_the_driver_too(long_night: Path, on: str, request: pytest.FixtureRequest) -> None:
    client = HERE if on == "here" else request.getfixturevalue("client")
    out = f"terminated {on}"
    night = start(client, long_night, out=out)
    driver = driver_of(long_night, out)
    night.terminate()
    night.communicate(timeout=30)
    assert night.returncode == 143
    deadline = time.monotonic() + 30
    while driver in processes_with("mtl_core tag_catalogue"):
        assert time.monotonic() < deadline, "the driver goes on"
        time.sleep(0.1)
    assert not (long_night / out / lease.LEASE_FILE).exists()


@pytest.mark.slow
def test_a_night_that_is_killed_is_followed_up_by_the_same_command(client: dict[str, str], long_night: Path) -> None:
    first = start(client, long_night, out="followed")
    driver = driver_of(long_night, "followed")
    os.kill(driver, signal.SIGSTOP)  # it is at work when the second command asks, however long that takes to start
    first.kill()
    job_id = first.communicate()[1].split()[0]
    second = start(client, long_night, out="followed")
    assert second.stderr is not None
    followed = second.stderr.readline()
    os.kill(driver, signal.SIGCONT)
    stdout, stderr = second.communicate(timeout=300)
    assert second.returncode == 0 and stdout.startswith(f"{job_id}: exit status 0"), stdout + followed + stderr
    assert followed.startswith(f"{job_id} is at work")
    assert_all_tagged(long_night, "followed")


@pytest.mark.slow
def test_the_entry_point_of_a_submitted_job_retries_by_itself(client: dict[str, str], long_night: Path) -> None:
    """As in deploy/kuberay: `nightly` is the job, so it submits no other, and its driver is a process beside it.

    The submission brings no code: the driver sends its own to the workers, whose nodes have another.
    """
    job = subprocess.Popen(
        [RAY, "job", "submit", "--submission-id", "night", "--", "env", f"PYTHONPATH={REPOSITORY}",
         "python", "-m", "mtl_core", "nightly", "--manifest", long_night / "manifest.parquet",
         "--model", long_night / "model", "--out", long_night / "inside", "--num-workers", "2", "--retry-wait-s", "0"],
        env=os.environ | client, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    os.kill(driver_of(long_night, "inside"), signal.SIGKILL)
    printed = job.communicate(timeout=300)[0]
    assert job.returncode == 0 and "retry 1 of 2" in printed, printed
    assert "exit status 0; 400 tagged, 0 failed" in printed and "in 2 tries" in printed
    assert_all_tagged(long_night, "inside")


@pytest.mark.slow
def test_a_driver_of_another_ray_than_the_clusters_ends_in_one_line(client: dict[str, str], folder: Path) -> None:
    program = (
        "import sys, runpy, ray; ray.__version__ = '2.59.0'; sys.argv[0] = 'mtl_core';"
        " runpy.run_module('mtl_core', run_name='__main__')"
    )
    ended = subprocess.run(
        [RAY, "job", "submit", "--", "env", f"PYTHONPATH={REPOSITORY}", "python", "-c", program, "tag_catalogue",
         "--manifest", folder / "manifest.parquet", "--model", folder / "model", "--out", folder / "versions"],
        env=os.environ | client, capture_output=True, text=True,
    )  # fmt: skip
    (line,) = {line for line in ended.stdout.splitlines() if line.startswith("error: ")}  # Ray prints the log twice
    assert ended.returncode == 1 and line.endswith("[exit status 2]"), ended.stdout
    assert "Ray: 2.60" in line and "Ray: 2.59.0" in line and "Traceback" not in ended.stdout


@pytest.mark.slow
def test_a_head_that_goes_away_ends_the_night_with_1(long_night: Path) -> None:
    with head_with_job_api() as client:
        wait_until_it_answers(client)
        night = start(client, long_night, "--retries", "1", out="lost")
        driver_of(long_night, "lost")
    stdout, stderr = night.communicate(timeout=400)  # the head is given 5 minutes to come back
    assert night.returncode == 1 and "no job API of Ray answers there" in stdout, stdout + stderr
    assert "has not answered for 300 s" not in stdout and stderr.endswith("[exit status 1]\n")
