"""The job API of a cluster: what it answers becomes an exit status, one line, or a job that is followed."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mtl_core.errors import InputError
from mtl_core.pipelines.night import job_server
from mtl_core.pipelines.night.job_server import JobServer

COMMAND = ["python", "-m", "mtl_core", "tag_catalogue", "--out", "a b"]
ENTRYPOINT = "python -m mtl_core tag_catalogue --out 'a b'"


class Head(ThreadingHTTPServer):
    """A head's job API over HTTP, as Ray's REST API is documented. A job that is submitted ends at once as `ends`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.version: Any = {"version": "4", "ray_version": metadata.version("ray")}
        self.status = 200  # of every answer
        self.cuts = False  # whether every answer ends in its middle
        self.jobs: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, Any] = {"status": "SUCCEEDED", "driver_exit_code": 0}
        self.taken_meanwhile: str | None = None  # an id that another machine takes before the submission arrives
        self.requests: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def add_job(self, job_id: str, entrypoint: str = ENTRYPOINT, **fields: Any) -> None:
        message = "failed with exit code 3, last available logs (truncated to 20,000 chars):\nmany\nlines"
        job = {"submission_id": job_id, "entrypoint": entrypoint, "message": message, "driver_exit_code": None}
        self.jobs[job_id] = job | fields


class Answers(BaseHTTPRequestHandler):
    server: Head

    def answer(self, body: Any, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")
        name = self.path.removeprefix("/api/jobs/")
        if self.server.status != 200:
            self.answer("no", self.server.status)
        elif self.server.cuts:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"{")
        elif self.path == "/api/version":
            self.answer(self.server.version)
        elif not name:
            self.answer(list(self.server.jobs.values()))
        elif name.endswith("/logs"):
            self.answer({"logs": "a line\nfailed: why [exit status 1]\n"})
        elif name in self.server.jobs:
            self.answer(self.server.jobs[name])
        else:  # a package is there already
            self.answer({}, 200 if self.path.startswith("/api/packages/") else 404)

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        submitted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        job_id = submitted["submission_id"]
        if self.server.taken_meanwhile:
            self.server.add_job(self.server.taken_meanwhile, **self.server.ends)
            self.server.taken_meanwhile = None
        if job_id in self.server.jobs:
            self.answer(f"ValueError: Job with submission_id {job_id} already exists", 500)
        else:
            self.server.add_job(job_id, submitted["entrypoint"], **self.server.ends)
            self.answer({"job_id": job_id, "submission_id": job_id})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(job_server, "POLL_S", 0.01)
    server = Head()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0),
        ({"status": "FAILED", "driver_exit_code": 3}, 3),
        ({"status": "FAILED", "driver_exit_code": 137}, 137),
        ({"status": "FAILED", "driver_exit_code": None}, None),  # its process on the head died
        ({"status": "STOPPED", "driver_exit_code": None}, 143),
    ],
)
def test_a_job_has_the_exit_status_of_its_driver(head: Head, ends: dict[str, Any], status: int | None) -> None:
    head.ends = ends
    ended = JobServer(head.address).run(COMMAND, "night")
    assert ended.exit_status == status and "failed: why" in ended.log and ended.message == "failed with exit code 3"
    assert head.jobs[ended.job_id]["entrypoint"] == ENTRYPOINT


def test_each_submission_of_a_date_has_an_id_of_its_own(head: Head) -> None:
    ids = [JobServer(head.address).run(COMMAND, "night").job_id for _ in range(3)]
    date = ids[0].removeprefix("night-")
    assert ids == [f"night-{date}", f"night-{date}-2", f"night-{date}-3"] and len(date) == 10


def test_the_same_command_at_work_is_followed(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    head.add_job("night-1999-01-01", status="RUNNING")
    head.add_job("other", "another command", status="RUNNING")
    monkeypatch.setattr(job_server.time, "sleep", lambda _: head.jobs["night-1999-01-01"].update(status="SUCCEEDED"))
    ended = JobServer(head.address).run(COMMAND, "night")
    assert ended.job_id == "night-1999-01-01" and not any(line.startswith("POST") for line in head.requests)


def test_an_id_that_another_machine_takes_meanwhile_is_passed_over(head: Head) -> None:
    first = JobServer(head.address).run(COMMAND, "night").job_id
    head.taken_meanwhile = f"{first}-2"
    assert JobServer(head.address).run(COMMAND, "night").job_id == f"{first}-3"


def test_a_head_that_restarts_or_does_not_answer_has_lost_the_job(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    server = JobServer(head.address, lost_after_s=0.3)
    head.ends = {"status": "RUNNING"}
    monkeypatch.setattr(job_server.time, "sleep", lambda _: head.jobs.clear())
    assert server.run(COMMAND, "night").message == "the head has restarted"
    monkeypatch.setattr(job_server.time, "sleep", lambda _: setattr(head, "status", 500))
    ended = server.run(COMMAND, "night")
    assert ended.exit_status is None and "has not answered for 0 s: HTTP Error 500" in ended.message
    head.status = 200
    monkeypatch.setattr(job_server.time, "sleep", lambda _: setattr(head, "cuts", True))
    assert "has not answered for 0 s: /api/jobs/night-" in server.run(COMMAND, "night").message


def test_a_cluster_of_another_version_or_token_is_refused_in_one_line(head: Head) -> None:
    head.version = {"ray_version": "2.59.0"}
    with pytest.raises(InputError, match=r"runs Ray 2\.59\.0, and this machine has .*: allowed is the same version"):
        JobServer(head.address)
    head.status = 401
    with pytest.raises(InputError, match="refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"):
        JobServer(head.address)
    head.status = 404
    with pytest.raises(InputError, match="no job API of Ray answers there: HTTP Error 404"):
        JobServer(head.address)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9: no job API of Ray answers there: .*refused"):
        JobServer("http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"\[::1: no job API of Ray answers there: .*Invalid IPv6 URL"):
        JobServer("http://[::1")
    head.status, head.version = 200, ["another service"]
    with pytest.raises(InputError, match="no job API of Ray answers there: list indices"):
        JobServer(head.address)


def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret\n")  # as a file of a Kubernetes secret may end
    JobServer(head.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret\nsecret")
    with pytest.raises(InputError, match="is not one line of ASCII") as refused:
        JobServer(head.address)
    assert "secret" not in str(refused.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match="is not one line of ASCII"):
        JobServer(head.address)


def test_the_head_is_that_of_ray_job_submit_but_not_within_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    assert job_server.named_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # a driver joins it
    assert job_server.named_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "http://a:8265/")
    assert job_server.named_address() == "http://a:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "b:8265")  # as a machine of its own it would be a surprise
    with pytest.raises(InputError, match="RAY_API_SERVER_ADDRESS=b:8265: allowed is http://HOST:PORT"):
        job_server.named_address()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://b")
    assert job_server.named_address() == "https://b"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert job_server.named_address() is None
