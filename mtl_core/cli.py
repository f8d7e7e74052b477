"""Command line: a frozen dataclass defines the flags of a job, and errors become its exit status.

0  done
1  the run failed; the same command resumes it
2  arguments or inputs are wrong; one line says which and what is allowed
3  done, but too many tracks failed
5  done, and the model that was compared is worse
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

DONE, FAILED, WRONG_INPUT, TOO_MANY_FAILED, WORSE = 0, 1, 2, 3, 5


def _parse_flags(options: type[Options]) -> Options:
    """The process's flags. One that is not allowed, also by the dataclass's `__post_init__`, is an InputError."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(options)
    except SystemExit as error:
        if error.code != WRONG_INPUT:
            raise
    first_paragraph = re.split(r"│ ─+ │", printed.getvalue())[0]  # of tyro's error, which is drawn as a box
    lines = [line.strip("│ ") for line in first_paragraph.splitlines() if not line.startswith(("╭", "╰"))]
    raise InputError(one_line(" ".join(lines)).removeprefix(f"Error parsing {options.__name__}: "))


@contextlib.contextmanager
def flag_errors() -> Iterator[None]:
    """Turn a ValueError of the body, which makes configs from flags, into an InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None


def main(function: Callable[[Options], int | None], options: type[Options]) -> None:
    """Run a job: parse the process's flags into `options`, call `function` with them, exit with its status (None is 0).

    The docstrings of the dataclass `options` are the help.
    """
    try:
        status = function(_parse_flags(options)) or DONE
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
