"""Command line: a frozen dataclass becomes the flags of a job, and what happens becomes its exit status.

0 done; 1 the run failed, the same command takes it up again; 2 arguments or inputs are wrong, said in one line;
3 done, but too many tracks failed.
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import tyro

from mtl_core.errors import InputError, RunError

Options = TypeVar("Options")

DONE, FAILED, WRONG_INPUT, TOO_MANY_FAILED = 0, 1, 2, 3


def parse_flags(options: type[Options], arguments: list[str] | None = None) -> Options:
    """Flags -> dataclass; a `ValueError` of its `__post_init__` is a wrong flag too.

    Raises:
        InputError: a flag is unknown, missing, or has a value that is not allowed.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(options, args=arguments)
    except SystemExit as error:
        if error.code != WRONG_INPUT:
            raise
        raise InputError(_one_line(printed.getvalue())) from None


def _one_line(box: str) -> str:
    """tyro's error is a box of several lines: its first paragraph, as one line."""
    paragraph = re.split(r"│ ─+ │", box)[0]
    lines = [line.strip("│ ") for line in paragraph.splitlines() if not line.startswith(("╭", "╰"))]
    return " ".join(" ".join(lines).split())


@contextlib.contextmanager
def flag_errors() -> Iterator[None]:
    """Where a job makes configs out of its flags: a ValueError there is a wrong flag."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None


def main(function: Callable[[Options], int | None], options: type[Options]) -> None:
    """Parse the process's flags, call `function` with them, and exit with its status (None is 0)."""
    try:
        status = function(parse_flags(options)) or DONE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = WRONG_INPUT
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        status = FAILED
    except KeyboardInterrupt:
        print("interrupted: the same command takes up where this one stopped", file=sys.stderr)
        status = FAILED
    sys.stdout.flush()
    sys.exit(status)
