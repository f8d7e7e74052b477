"""Command line: a frozen dataclass defines the flags of a job, and errors become its exit status.

    0  done
    1  the run failed; the same command resumes it
    2  arguments or inputs are wrong; one line says which and what is allowed
    3  done, but too many tracks failed

Contents: `main`, `parse_flags`, `flag_errors`.
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import tyro

from mtl_core.errors import InputError, RunError, one_line

Options = TypeVar("Options")

DONE, FAILED, WRONG_INPUT, TOO_MANY_FAILED = 0, 1, 2, 3


def parse_flags(options: type[Options], arguments: list[str] | None = None) -> Options:
    """Parse flags into a dataclass.

    Args:
        options: the dataclass; its docstrings are the help.
        arguments: None: those of the process.

    Raises:
        InputError: a flag is unknown, missing, or has a value that is not allowed (also a `ValueError` of the
            dataclass's `__post_init__`).
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(options, args=arguments)
    except SystemExit as error:
        if error.code != WRONG_INPUT:
            raise
        message = _first_paragraph(printed.getvalue())
        raise InputError(message.removeprefix(f"Error parsing {options.__name__}: ")) from None


def _first_paragraph(box: str) -> str:
    """The first paragraph of tyro's error, which is a box of several lines, as one line."""
    paragraph = re.split(r"│ ─+ │", box)[0]
    lines = [line.strip("│ ") for line in paragraph.splitlines() if not line.startswith(("╭", "╰"))]
    return one_line(" ".join(lines))


@contextlib.contextmanager
def flag_errors() -> Iterator[None]:
    """Turn a ValueError of the body, which makes configs from flags, into an InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None


def main(function: Callable[[Options], int | None], options: type[Options]) -> None:
    """Run a job: parse the process's flags, call `function` with them, and exit with its status (None is 0).

    Args:
        function: the job.
        options: the dataclass of its flags.
    """
    try:
        status = function(parse_flags(options)) or DONE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = WRONG_INPUT
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        status = FAILED
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        status = FAILED
    sys.stdout.flush()
    sys.exit(status)
