"""The log: one event a line in JSON, the bare message as text, and credentials in neither."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_core import log

PROGRAM = """
import sys, warnings
from dataclasses import dataclass
from mtl_core import cli, log

@dataclass(frozen=True)
class Options:
    fails: bool = False
    "Whether it fails."

def main(options):
    log.event("planned", tracks=3)
    log.set_run_id("r1")
    log.event("progress", "1 of 3", done=1)
    log.warning("http://me:pass@store/x is slow")
    warnings.warn("of a library")
    print("half a ", end="", file=sys.stderr)
    print("line of a worker", file=sys.stderr)
    print("the result")
    if options.fails:
        raise RuntimeError("a bug at s3://me:pass@b")
    return 3

cli.main(main, Options)
"""


def run(*flags: str) -> tuple[int, str, str]:
    ended = subprocess.run([sys.executable, "-W", "always", "-c", PROGRAM, *flags], capture_output=True, text=True)
    assert "pass" not in ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


def test_as_json_every_line_is_an_event() -> None:
    status, stdout, stderr = run("--log-format", "json")
    events = [json.loads(line) for line in stderr.splitlines()]
    assert (status, stdout) == (3, "the result\n")
    assert [(one["event"], one["level"], one["run_id"]) for one in events if one["event"] != "output"] == [
        ("planned", "info", None),
        ("progress", "info", "r1"),
        ("warning", "warning", "r1"),
        ("end", "error", "r1"),
    ]
    assert events[0]["tracks"] == 3 and "message" not in events[0]
    assert all(one["time"].endswith("+00:00") for one in events)
    texts = [one["message"] for one in events if one["event"] == "output"]
    assert "UserWarning: of a library" in texts[0] and texts[-1] == "half a line of a worker"
    assert events[-1]["message"] == "done, but too many tracks failed [exit status 3]"
    assert events[-1]["exit_status"] == 3


def test_as_text_the_messages_alone_are_printed() -> None:
    lines = [line for line in run()[2].splitlines() if "Warning" not in line and "warnings.warn" not in line]
    assert lines == [
        "1 of 3",
        "warning: http://***@store/x is slow",
        "half a line of a worker",
        "done, but too many tracks failed [exit status 3]",
    ]


def test_a_bug_is_one_event_with_its_traceback() -> None:
    status, _, stderr = run("--fails", "--log-format=json")
    *_, bug, end = [json.loads(line) for line in stderr.splitlines()]
    assert status == 1 and bug["event"] == "traceback" and bug["message"].count("\n") > 2
    assert end["message"] == "failed: a bug at s3://***@b [exit status 1]"
    status, _, stderr = run("--fails")
    assert stderr.splitlines()[-2:] == [
        "RuntimeError: a bug at s3://***@b",
        "failed: a bug at s3://***@b [exit status 1]",
    ]


@pytest.mark.parametrize("flags", [["bogus"], ["status", "--bogus"], ["status", "--config", "/not/there"]])
def test_errors_of_the_command_line_are_events_too(flags: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtl_core", *flags, "--log-format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    (event,) = map(json.loads, ended.stderr.splitlines())
    assert ended.returncode == event["exit_status"] == 2 and event["message"].startswith("error: ")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("s3://AKIA:a/b+c=@bucket/key: no", "s3://***@bucket/key: no"),
        ("https://token@host:1/p", "https://***@host:1/p"),
        ("http://u:p@ss@host/", "http://***@host/"),
        ("http://127.0.0.1:8265/a@b", "http://127.0.0.1:8265/a@b"),
        ("http://127.0.0.1:8265 me@host", "http://127.0.0.1:8265 me@host"),
        ("s3://bucket/a:b@c and x@y", "s3://bucket/a:b@c and x@y"),
        ("s3://b/k?x-amz-signature=ab&X-Amz-Credential=AKIA%2F1&n=1", "s3://b/k?x-amz-signature=***&X-Amz-Credential=***&n=1"),
        ("/music/a=b@c.mp3", "/music/a=b@c.mp3"),
    ],
)  # fmt: skip
def test_credentials_in_urls_are_hidden_and_nothing_else(text: str, hidden: str) -> None:
    assert log.hide_credentials(text) == hidden


@given(
    st.text(st.characters(blacklist_categories=["Z", "C"], blacklist_characters="@:/"), min_size=1),
    st.text("ab:/@+=?", min_size=1),
)
def test_a_user_and_password_never_survive(user: str, password: str) -> None:
    """Whatever a password is of, it may hold the characters that a URL would escape."""
    hidden = log.hide_credentials(f"error: s3://{user}:x{password}@bucket/key")
    assert hidden.endswith("s3://***@bucket/key")


def test_an_event_is_no_part_of_a_line_that_has_no_end_yet(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    try:
        print("\r 10 %", end="", file=sys.stderr)  # a bar of progress
        log.event("commit", tagged=1)
    finally:
        log.configure("text")
    bar, commit = map(json.loads, capsys.readouterr().err.splitlines())
    assert (bar["event"], bar["message"]) == ("output", "10 %")
    assert (commit["event"], commit["tagged"]) == ("commit", 1)
