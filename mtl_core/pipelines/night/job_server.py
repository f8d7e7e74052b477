"""Job server: the job API of a cluster's head, by which a command is submitted and followed from another machine.

`RAY_API_SERVER_ADDRESS` names the head, as for `ray job submit`; `RAY_ADDRESS` does if it begins with http:// or
https://. Requests go through Ray's REST API, each with a time limit: Ray's own client has none, so it would wait for
ever for a head that has gone away. That client only submits, which sends this package along.
"""

import http.client
import json
import logging
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mtl_core
from mtl_core import log, termination
from mtl_core.errors import InputError, one_line
from mtl_core.pipelines.workers import cluster

ANSWER_S = 20.0  # the longest time that an answer may take
POLL_S = 2.0
LOST_AFTER_S = 300.0  # a head that does not answer for so long has gone away; it may restart in less
LOG_LINES = 50  # of a driver that failed, which are shown


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job that has ended, or whose head has gone away."""

    job_id: str
    exit_status: int | None  # the driver's own, 143 if it was stopped; None: nobody saw the driver end
    log: str  # what the driver printed; empty where that is lost
    message: str  # of the cluster


def named_address() -> str | None:
    """The address of the head's job API, without a slash at its end; None: the environment names none.

    A driver that is a submitted job itself has none: it works on its own cluster.

    Raises:
        InputError: `RAY_API_SERVER_ADDRESS` is of another form.
    """
    if cluster.is_submitted():
        return None
    named, joined = (os.environ.get(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    address = (named or joined).rstrip("/")
    if address.startswith(("http://", "https://")):
        return address
    if named:
        raise InputError(f"RAY_API_SERVER_ADDRESS={named}: allowed is http://HOST:PORT or https://…")
    return None


class JobServer:
    """The job API at an address.

    Raises:
        InputError: nothing answers there, it refuses the token, or it runs another version of Ray.
    """

    def __init__(self, address: str, *, lost_after_s: float = LOST_AFTER_S) -> None:
        self.address, self._lost_after_s = address, lost_after_s
        ours, theirs = metadata.version("ray"), self._version()
        if ours != theirs:
            raise InputError(f"{address} runs Ray {theirs}, and this machine has {ours}: allowed is the same version")

    def _version(self) -> str:
        try:
            return str(self._request("/api/version")["ray_version"])
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise InputError(
                    f"the cluster {self.address} refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from None
            raise InputError(f"{self.address}: no job API of Ray answers there: {error}") from None
        except (OSError, KeyError, TypeError) as error:  # TypeError: JSON of another kind
            raise InputError(f"{self.address}: no job API of Ray answers there: {one_line(error)}") from None

    def run(self, command: Sequence[str], name: str) -> EndedJob:
        """Run a command on the head and wait for its end. If the same command is at work there, follow that one.

        Args:
            command: words of the command line; the driver and the workers have the `mtl_core` of this process.
            name: the job's id begins with it and the date (UTC): NAME-2026-11-28, then NAME-2026-11-28-2 and so on.

        Raises:
            OSError: the command cannot be submitted.
        """
        job_id = self._attach_or_submit(shlex.join(command), name)
        with termination.cleanup(lambda: self._stop(job_id)):
            return self._follow(job_id)

    def _attach_or_submit(self, entrypoint: str, name: str) -> str:
        jobs = self._request("/api/jobs/")
        alike = [job for job in jobs if job["submission_id"] and job["entrypoint"] == entrypoint]
        at_work = [job["submission_id"] for job in alike if not _has_ended(job)]
        if at_work:
            log.event("followed", f"{at_work[0]} is at work on {self.address}: it is followed", job_id=at_work[0])
            return str(at_work[0])
        job_id = next_id(dated_id(name), {job["submission_id"] for job in jobs})
        message = f"{job_id} is submitted to {self.address}; its log: ray job logs --follow {job_id}"
        log.event("submitted", message, job_id=job_id)
        from ray.job_submission import JobSubmissionClient  # takes a second to import

        package = {"py_modules": [str(Path(mtl_core.__file__).parent)]}
        try:
            return str(
                JobSubmissionClient(self.address).submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=package
                )
            )
        except RuntimeError as error:
            if "already exists" in str(error):  # another machine was faster
                return self._attach_or_submit(entrypoint, name)
            raise OSError(f"{self.address}: {job_id} is not accepted: {one_line(error)}") from None

    def _follow(self, job_id: str) -> EndedJob:
        """Ask for the job until it has ended, or the head has not answered for too long."""
        problem, answered_s = "", time.monotonic()
        while time.monotonic() - answered_s < self._lost_after_s:
            time.sleep(POLL_S)
            try:
                job = self._request(f"/api/jobs/{job_id}")
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return EndedJob(job_id=job_id, exit_status=None, log="", message="the head has restarted")
                problem = str(error)
            except OSError as error:
                problem = one_line(error)
            else:
                answered_s = time.monotonic()
                if _has_ended(job):
                    return self._ended(job_id, job)
        message = f"{self.address} has not answered for {self._lost_after_s:.0f} s: {problem}"
        return EndedJob(job_id=job_id, exit_status=None, log="", message=message)

    def _ended(self, job_id: str, job: dict[str, Any]) -> EndedJob:
        status = job["driver_exit_code"]
        if job["status"] == "STOPPED":
            status = termination.TERMINATED
        try:
            printed = self._request(f"/api/jobs/{job_id}/logs")["logs"]
        except OSError as error:
            printed = f"the log of {job_id} cannot be read: {one_line(error)}\n"
        if status != 0:
            print(*printed.splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
        message = one_line(job["message"] or job["status"]).partition(", last available logs")[0]  # which Ray adds
        return EndedJob(job_id=job_id, exit_status=status, log=printed, message=message)

    def _stop(self, job_id: str) -> None:
        """Ask the cluster to stop the job: it gets SIGTERM."""
        try:
            self._request(f"/api/jobs/{job_id}/stop", method="POST", timeout_s=termination.GRACE_S / 2)
        except OSError as error:
            log.event("error", f"{job_id} could not be stopped: {one_line(error)}", level=logging.ERROR)

    def _request(self, path: str, *, method: str = "GET", timeout_s: float = ANSWER_S) -> Any:
        """The JSON that a request answers. Raises OSError, also if the answer is cut or no JSON; HTTPError is one."""
        headers = _headers()
        try:
            request = urllib.request.Request(self.address + path, method=method, headers=headers)
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.load(answer)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{path}: {one_line(error)}") from None


def _headers() -> dict[str, str]:
    """Those that carry the token, from where Ray's own client takes it. Raises InputError if no header can carry it."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token is None and file.is_file():
        token = file.read_text(errors="replace")
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):  # urllib's own error would show the token
        raise InputError("the token of RAY_AUTH_TOKEN, or of the file RAY_AUTH_TOKEN_PATH, is not one line of ASCII")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _has_ended(job: dict[str, Any]) -> bool:
    return job["status"] in ("SUCCEEDED", "FAILED", "STOPPED")


def dated_id(name: str) -> str:
    """NAME-2026-11-28: the id of the day's first job (UTC)."""
    return f"{name}-{datetime.now(UTC):%Y-%m-%d}"


def next_id(first: str, taken: set[str]) -> str:
    """`first`, or `first-2` and so on: a submission's id cannot be used again."""
    number, job_id = 1, first
    while job_id in taken:
        number += 1
        job_id = f"{first}-{number}"
    return job_id
