"""Every door of every job: a wrong argument or input ends in one line and exit status 2, before any work."""

import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parents[2]


def run(job: str, *flags: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", [f"jobs/{job}.py", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "jobs" / f"{job}.py"), run_name="__main__")
    return int(ended.value.code or 0)


MANIFEST = {"track_id": ["a", "b"], "uri": ["/a", "/b"]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    pq.write_table(pa.table(MANIFEST), tmp_path / "manifest.parquet")
    pq.write_table(pa.table({"track_id": ["a"]}), tmp_path / "without-uri.parquet")
    pq.write_table(pa.table({"track_id": ["a", "a"], "uri": ["/a", "/b"]}), tmp_path / "twice.parquet")
    (tmp_path / "empty").mkdir()
    return tmp_path


TAG = "--manifest {p}/manifest.parquet --model {p}/empty --out {p}/out"
EXTRACT = "--manifest {p}/manifest.parquet --out {p}/out"


@pytest.mark.parametrize(
    ("job", "flags", "said"),
    [
        ("tag_catalogue", "--model m --out o", "--manifest"),
        ("tag_catalogue", TAG + " --bogus 1", "--bogus"),
        ("tag_catalogue", TAG + " --limit 0", "limit must be 1 or more, got 0"),
        ("tag_catalogue", TAG + " --limit many", "many"),
        ("tag_catalogue", TAG + " --max-failed-share 2", "allowed is 0 to 1"),
        ("tag_catalogue", TAG + " --num-workers 0", "workers must be 1 or more"),
        ("tag_catalogue", TAG + " --decode-limit-s -1", "-1"),
        ("tag_catalogue", TAG + " --decode-limit-s inf", "inf"),
        ("tag_catalogue", TAG + " --export-parquet {p}/empty", "is a folder"),
        ("tag_catalogue", TAG, "is not a model artifact"),
        ("tag_catalogue", "--manifest gs://x/y --model m --out o", "'gs://x/y'"),
        ("build_manifest", "--catalogue {p} --labels l.csv --labels-from folders --out o", "--labels-from csv alone"),
        ("run_experiment", "--mels {p}/empty --out {p}/out", "there are no mels"),
        ("run_experiment", "--mels {p}/empty --out {p}/out --resamples -1", "resamples must be >= 0, got -1"),
        ("extract_mels", EXTRACT.replace("manifest.parquet", "gone.parquet"), "gone.parquet: nothing is there"),
        ("extract_mels", EXTRACT.replace("manifest.parquet", "without-uri.parquet"), "no column 'uri'"),
        ("extract_mels", EXTRACT.replace("manifest.parquet", "twice.parquet"), "'a'"),
        ("extract_mels", EXTRACT.replace("manifest.parquet", "empty"), "without Parquet files"),
        ("extract_mels", EXTRACT + " --segments-per-excerpt 21", "21"),
        ("extract_mels", EXTRACT + " --draws -1", "-1"),
        ("build_manifest", "--catalogue {p}/gone --out {p}/m.parquet", "gone: nothing is there"),
        ("build_manifest", "--catalogue {p}/empty --out {p}/m.parquet", "no audio file below it"),
        ("build_manifest", "--catalogue {p} --labels {p}/gone.csv --out {p}/m.parquet", "gone.csv: nothing is there"),
        ("build_manifest", "--catalogue {p} --labels {p}/manifest.parquet --out {p}/m", "no UTF-8 CSV"),
        ("extract_mels", EXTRACT.replace("{p}/out", "{p}/twice.parquet"), "is no folder"),
        ("extract_mels", EXTRACT.replace("{p}/out", "{p}/twice.parquet/mels"), "is no folder"),
        ("extract_mels", EXTRACT.replace("{p}/out", "file:/mels"), "file:/mels"),
        ("train", "--mels gs://x --out {p}/out", "'gs://x'"),
        ("train", "--mels {p}/empty --out {p}/out --seed -1", "seed must be 0 to"),
        ("train", "--mels {p}/gone --out {p}/out", "gone"),
        ("train", "--mels {p}/empty --out {p}/out", "no mels"),
        ("train", "--mels {p}/empty --out {p}/out --tasks genre", "genre"),
        ("train", "--mels {p}/empty --out {p}/out --recipe secret", "secret"),
        ("train", "--mels {p}/empty --out {p}/out --split random", "random"),
        ("evaluate", "--model {p}/empty --mels {p}/empty --out {p}/out", "is not a model artifact"),
        ("evaluate", "--model {p}/empty --mels {p}/empty --out {p}/out --on tuesday", "tuesday"),
        ("evaluate", "--model {p}/empty --mels {p}/empty --out {p}/out --num-workers 0", "workers must be 1 or more"),
        ("make_demo_catalogue", "--out {p}/c --languages 0", "0"),
        ("make_demo_catalogue", "--out {p}/c --difficulty odd", "odd"),
    ],
)
def test_one_line_and_exit_status_2(
    job: str,
    flags: str,
    said: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(place.rglob("*"))
    assert run(job, *flags.format(p=place).split(), monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    assert said in printed.err
    assert sorted(place.rglob("*")) == before, "no work was begun"


@pytest.mark.parametrize(
    "job", ["tag_catalogue", "extract_mels", "build_manifest", "train", "evaluate", "make_demo_catalogue"]
)
def test_help_names_every_flag_with_its_default(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(job, "--help", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "--out" in printed and ("default" in printed.lower() or job == "build_manifest")


def job(*command: object, **environment: str) -> tuple[int, str, float]:
    """A job as its user runs it: exit status, standard error, seconds."""
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stderr, time.monotonic() - begun


def test_an_unreachable_endpoint_is_said_in_time() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (9, silent.getsockname()[1]):
            endpoint = f"http://127.0.0.1:{port}"
            flags = ("--manifest", "s3://bucket/manifest.parquet", "--out", "s3://bucket/mels")
            status, said, seconds = job("jobs/extract_mels.py", *flags, AWS_ENDPOINT_URL=endpoint, **keys)
            assert status == 2 and said.count("\n") == 1 and endpoint in said and "cannot be reached" in said, said
            assert seconds < 30


def test_a_cluster_that_does_not_answer_is_said_in_time(place: Path) -> None:
    flags = ("--manifest", place / "manifest.parquet", "--out", place / "out")
    status, said, seconds = job("jobs/extract_mels.py", *flags, RAY_ADDRESS="127.0.0.1:9")
    assert status == 2 and said.count("\n") == 1 and "RAY_ADDRESS=127.0.0.1:9" in said, said
    assert seconds < 30


def test_wrong_credentials_are_said_in_time(tmp_path: Path) -> None:
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
        status, said, seconds = job(
            "jobs/build_manifest.py", "--catalogue", "s3://bucket/catalogue", "--out", tmp_path / "m.parquet",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="wrong",
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()
    assert status == 2 and said.count("\n") == 1 and "access denied" in said, said
    assert seconds < 30
