"""A job does its work and ends with its status, whatever becomes of its stdout and stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import sys
from dataclasses import dataclass
from pathlib import Path
from mtl_core import cli

@dataclass
class Options:
    out: str

def main(options):
    with open(options.out + ".first", "w") as file:
        descriptor = file.fileno()
    for _ in range(20_000):
        print("a line about Björk, Łukasz and 日本語")
    print("a warning about Björk", file=sys.stderr)
    Path(options.out).write_text(f"done {descriptor}")
    return cli.TOO_MANY_FAILED

cli.main(main, Options)
"""
SHELLS = {
    "closed": 'exec "$@" >&- 2>&-',
    "stdin closed too": 'exec "$@" <&- >&- 2>&-',
    "full": 'exec "$@" >/dev/full 2>/dev/full',
    "a pipe that nobody reads": '"$@" > >(exec true) 2> >(exec true)',
    "a pipe of which one line is read": '"$@" > >(head -n 1 >/dev/null) 2>&1',
    "ASCII": 'PYTHONIOENCODING=ascii LC_ALL=C exec "$@" >/dev/null',
}


@pytest.mark.parametrize("name", SHELLS)
def test_the_work_is_done_and_the_status_is_that_of_the_job(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    command = ["bash", "-c", SHELLS[name], "bash", sys.executable, "-c", JOB, "--out", str(out)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], timeout=60, check=False)
    assert ended.returncode == 3
    words = out.read_text().split()
    assert words[0] == "done" and int(words[1]) > 2, "no file of the job has the number of stdout"


def test_what_cannot_be_written_becomes_an_escape(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", JOB, "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, check=False)
    assert ended.stdout.startswith(rb"a line about Bj\xf6rk, \u0141ukasz")
    *_, warning, last = ended.stderr.splitlines()
    assert (warning, last) == (rb"a warning about Bj\xf6rk", b"done, but too many tracks failed [exit status 3]")


def test_an_error_that_nothing_catches_names_its_status(tmp_path: Path) -> None:
    job = JOB.replace("    return cli.TOO_MANY_FAILED", "    raise KeyError('a bug')")
    command = [sys.executable, "-c", job, "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and ended.stderr.endswith("failed: 'a bug' [exit status 1]\n"), json.dumps(
        ended.stderr
    )


def test_wrong_commands_and_the_usage_heed_the_streams_too() -> None:
    command = [sys.executable, "-m", "mtl_core"]
    for arguments, shell, status in ((["bogus"], SHELLS["closed"], 2), (["--help"], SHELLS["full"], 0)):
        ended = subprocess.run(
            ["bash", "-c", shell, "bash", *command, *arguments], cwd=Path(__file__).parents[1], check=False
        )
        assert ended.returncode == status
