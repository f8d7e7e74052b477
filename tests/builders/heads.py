"""A Ray head whose job API requires a token, beside whatever else runs on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from builders.credentials import NEVER_SHOWN

RAY = Path(sys.executable).with_name("ray")
TOKEN = "a-token-of-these-tests-alone-0123456789"
NEVER_SHOWN.add(TOKEN)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def head_with_job_api(*, nodes: int = 0, **environment: str) -> Iterator[dict[str, str]]:
    """Start a head of 2 CPUs, with more environment variables; yields those of a client. Nothing is left at the end.

    Args:
        nodes: more nodes, of one CPU each.
    """
    dashboard, port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        head = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--temp-dir={folder}",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
             f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
             "--object-store-memory=200000000"],
            env=os.environ | token | {"PATH": f"{RAY.parent}:{os.environ['PATH']}"} | environment,  # has `python`
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        address = f"http://127.0.0.1:{dashboard}"
        client = token | {"RAY_ADDRESS": address, "RAY_API_SERVER_ADDRESS": address}
        started = [head]
        try:
            for _ in range(nodes):
                wait_until_it_answers(client)
                node = [RAY, "start", f"--address=127.0.0.1:{port}", "--block", "--num-cpus=1",
                        "--object-store-memory=200000000"]  # fmt: skip
                output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                started.append(subprocess.Popen(node, env=os.environ | token, start_new_session=True, **output))
            yield client
        finally:
            for process in reversed(started):
                process.terminate()  # with --block it ends its children too
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        deadline = time.monotonic() + 20
        while (leftovers := processes_with(folder)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not leftovers, "the head left processes behind"


def wait_until_it_answers(client: dict[str, str]) -> None:
    """Wait until the job API of a head answers."""
    request = urllib.request.Request(
        client["RAY_API_SERVER_ADDRESS"] + "/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            return urllib.request.urlopen(request, timeout=20).close()
        except OSError:
            assert time.monotonic() < deadline, "the head does not answer"
            time.sleep(0.5)


def processes_with(*texts: str) -> dict[int, str]:
    """Process id -> command line, of the running processes whose command line contains all the texts."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        if all(text in line for text in texts):
            found[int(process.name)] = line
    return found
