"""Command line: a frozen dataclass defines the flags of a job, and errors become its exit status.

0  done
1  the run failed; the same command resumes it
2  arguments or inputs are wrong; one line says which and what is allowed
3  done, but too many tracks failed
4  another run is at work; nothing was done
5  done, and the model that was compared is worse
143  stopped by SIGTERM; the same command resumes

The last line on stderr names any status but 0, because `ray job submit` passes on only 0 or 1.
"""

import atexit
import contextlib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn, TypeVar

from mtl_core import configuration, log, standard_output, termination
from mtl_core.errors import InputError, OtherRunError, RunError, one_line

Options = TypeVar("Options")

DONE, FAILED, WRONG_INPUT, TOO_MANY_FAILED, OTHER_RUN, WORSE = range(6)
_ending: int | None = None  # the exit status, once the process ends
_MEANINGS = {TOO_MANY_FAILED: "done, but too many tracks failed", WORSE: "done, and the model is worse"}


@contextlib.contextmanager
def flag_errors() -> Iterator[None]:
    """Turn a ValueError of the body, which makes configs from flags, into an InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None


def main(function: Callable[[Options], int | None], options: type[Options]) -> None:
    """Run a job: resolve its `configuration`, call `function` with it, exit with its status (None is 0).

    The docstrings of the dataclass `options` are the help.
    """
    standard_output.install()
    log.configure(configuration.early_format(sys.argv[1:]))
    termination.install()
    sys.excepthook = _report_bug
    try:
        resolved = configuration.resolve(options, sys.argv[1:])
        if resolved.common.print_config:
            print(resolved.to_toml(), end="")
            end(DONE)
        end(function(resolved.options) or DONE)
    except InputError as error:
        end(WRONG_INPUT, f"error: {one_line(error)}")  # a name may have a line end
    except OtherRunError as error:
        end(OTHER_RUN, f"busy: {error}")
    except RunError as error:
        end(FAILED, f"failed: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        end(FAILED, f"failed: {one_line(error)}: free space there, or name another folder for temporary files: TMPDIR")
    except KeyboardInterrupt:
        end(FAILED, "interrupted: the same command resumes")


def end(status: int, message: str | None = None) -> NoReturn:
    """Exit with a status; the last line on stderr names it, if it is not `DONE`."""
    global _ending
    _ending = status
    if status == DONE:
        log.event("end", exit_status=status)
    else:
        _log_end(status, message or _MEANINGS[status])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def _log_end(status: int, message: str) -> None:
    log.event("end", f"{message} [exit status {status}]", level=logging.ERROR, exit_status=status)


def _report_bug(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    """Print the traceback of an error that nothing catches, and the status that Python ends with."""
    global _ending
    _ending = FAILED
    lines = traceback.format_exception(kind, error, frames)
    log.event("traceback", "".join(lines).removesuffix("\n"), level=logging.ERROR)
    _log_end(FAILED, f"failed: {one_line(error)}")


@atexit.register
def leave() -> None:
    """End the process of a job at once, after the exit functions that were registered later than this module.

    Python then does not take itself apart. If it did, a thread of Arrow that still holds a Python object could call
    into it, which Python 3.11 to 3.13 answer by ending the thread. C++ turns that into an abort, with status 134.
    """
    if _ending is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_ending)
