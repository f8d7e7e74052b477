"""What the pages and the README say can be done: each command, flag, message and snippet exists."""

import ast
import dataclasses
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro

from mtl_core.__main__ import COMMANDS
from mtl_core.configuration import CommonOptions
from mtl_core.errors import ERRORS

REPOSITORY = Path(__file__).parents[2]
PAGES = {path.name: path.read_text() for path in (*(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "README.md")}
MAKER = runpy.run_path(str(REPOSITORY / "docs" / "make_reference.py"))
EVERY_COMMAND = {"--help", *(f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(CommonOptions))}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def command_lines(text: str) -> list[tuple[str, str]]:
    """Command and arguments of each call of mtl-core in a page, in blocks and in sentences."""
    parts = re.findall(r"^```\w*\n(.*?)^```|^(    .*)$|`([^`]+)`", text, re.DOTALL | re.MULTILINE)
    code = re.sub(r" *\\\n *", " ", "\n".join(map("".join, parts)))
    found = re.findall(r"(?:mtl-core|python -m mtl_core|python jobs/) *([a-z_]+)\b(?:\.py)?([^\n]*)", code)
    return [(command, re.split(r" [|#>]|&&|;", arguments)[0]) for command, arguments in found]


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_flags_that_a_page_gives_them(page: str) -> None:
    for command, arguments in command_lines(PAGES[page]):
        assert command in COMMANDS, f"mtl-core {command}{arguments}"
        fields = dataclasses.fields(MAKER["options_of"](command))
        allowed = EVERY_COMMAND | {f"--{field.name.replace('_', '-')}" for field in fields}
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments)) <= allowed, f"mtl-core {command}{arguments}"


@pytest.mark.parametrize("page", [page for page in PAGES if "```bash" in PAGES[page]])
def test_commands_to_copy_parse(page: str) -> None:
    for block in blocks(PAGES[page], "bash"):
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            program, *arguments = shlex.split(line, comments=True) or [""]
            if program == "mtl-core":
                tyro.cli(MAKER["options_of"](arguments[0]), args=arguments[1:], console_outputs=False)


@pytest.mark.parametrize("page", PAGES)
def test_programs_and_targets_of_a_page_exist(page: str) -> None:
    text = PAGES[page]
    for program in re.findall(r"\b(?:jobs|bench|examples|docs|tests)/[a-z\d_/]+\.py\b", text):
        assert (REPOSITORY / program).is_file(), program
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z\d-]+)", text, re.MULTILINE)) <= set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_of_a_page_are_of_their_language(page: str) -> None:
    for snippet in blocks(PAGES[page], "python"):
        ast.parse(snippet)
    for snippet in blocks(PAGES[page], "json"):
        json.loads(snippet)


def test_the_reference_is_what_the_dataclasses_say() -> None:
    assert PAGES["reference.md"] == MAKER["page"](), "`make docs` writes docs/reference.md"


def test_each_message_of_the_faq_is_in_the_code() -> None:
    texts = []
    for module in (REPOSITORY / "mtl_core").rglob("*.py"):
        nodes = ast.walk(ast.parse(module.read_text()))
        texts += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    messages = re.findall(r"^    (?:error|busy|failed): (.*)", PAGES["faq.md"], re.MULTILINE)
    assert len(messages) >= 15
    for message in messages:
        for part in re.split(r"…|(?:s3|arn):\S+|'|\d+ %", message):
            words = part.strip(" ,;:()")
            if len(words) > 8 and not message.startswith("The current node"):  # Ray says this
                assert any(words in text for text in texts), (words, message)


def test_the_faq_has_each_error_of_a_track() -> None:
    rows = re.findall(r"^\| `(\w+)/(\w+)` \| .* \| (every night|no) \|$", PAGES["faq.md"], re.MULTILINE)
    assert {(stage, error): again == "no" for stage, error, again in rows} == {
        (stage, error): permanent for stage, errors in ERRORS.items() for error, permanent in errors.items()
    }


def test_the_runbook_has_each_exit_status_and_each_alert() -> None:
    headings = re.findall(r"^### (.*)$", PAGES["runbook.md"], re.MULTILINE)
    statuses = re.findall(r"^(\d+)  ", (REPOSITORY / "mtl_core" / "cli.py").read_text(), re.MULTILINE)
    numbers = [int(match[1]) for heading in headings if (match := re.match(r"Status (\d+)", heading))]
    assert sorted(numbers) == sorted({*map(int, statuses), 137})
    alerts = "FailureShareHigh NoProgress Late UnknownShareJumped Drift LeaseContention".split()
    assert {f"MtlNight{alert}" for alert in alerts} <= set(headings)


def test_the_policy_is_what_a_night_needs() -> None:
    """As in the table of all jobs, which tests/jobs/test_permissions.py tries one by one."""
    (policy,) = map(json.loads, blocks(PAGES["security.md"], "json"))
    granted: set[tuple[str, str]] = set()
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, resources = (_as_list(statement[name]) for name in ("Action", "Resource"))
        granted |= {(action, resource) for action in actions for resource in resources}
    at = {
        "catalogue": "catalogue",
        "manifest": "tagging/manifest.parquet",
        "manifest, which it writes": "tagging/manifest.parquet",
        "model": "tagging/model-1",
        "out, which it writes": "tagging/tagged",
    }
    needed = re.findall(
        r"^\| `(?:tag_catalogue|build_manifest)` \| (.*) \| (.*) \|$", PAGES["security.md"], re.MULTILINE
    )
    assert len(needed) == 6
    for place, actions in needed:
        for action in actions.split(", "):
            names = [""] if action == "ListBucket" else [f"/{at[place]}"]
            names += [
                f"{name}/x" for name in names if name and not name.endswith(".parquet")
            ]  # a folder's own name and below
            for resource in (f"arn:aws:s3:::music{name}" for name in names):
                assert any(f"s3:{action}" == a and _covers(r, resource) for a, r in granted), (action, resource)


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value


def _covers(pattern: str, resource: str) -> bool:
    return resource.startswith(pattern[:-1]) if pattern.endswith("*") else resource == pattern
