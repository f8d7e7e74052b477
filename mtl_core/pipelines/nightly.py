"""Nightly: run `tag_catalogue` for one night, resume it where it fails, and tell how it ended.

Each try is a driver: a job that is submitted to a cluster, see `job_server`; without one, a process on this machine.
A driver that failed (status 1), was killed or was lost with its head is followed by another one, which resumes the run.
Every other exit status is the night's own.
"""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from mtl_core import log, termination
from mtl_core.errors import InputError
from mtl_core.pipelines.night import job_server
from mtl_core.pipelines.night.run_record import read_records, record_names
from mtl_core.storage.checks import as_input_error, check_reachable
from mtl_core.storage.location import Location

FAILED = 1
_LAST_LINE = re.compile(r"^(.*) \[exit status \d+\]$", re.MULTILINE)  # of a job that does not end with 0
_OUTPUT_S = 5.0  # how long the rest of a driver's output is waited for: what it started may hold the pipe open


@dataclass(frozen=True, kw_only=True)
class NightOptions:
    """How a night is tried.

    Raises:
        ValueError: a number is out of range, or the name has other characters.
    """

    retries: int = 2
    """How often a run is resumed that ended with 1, was killed, or was lost with the cluster's head, 0 or more. After
    any other exit status it would come out the same."""
    retry_wait_s: float = 60
    """Seconds before a run is resumed, 0 to 86400: a store or a node that is away may come back."""
    name: str = "nightly"
    """Begin of the job's id on the cluster, which ends with the date: letters, digits, - and _."""

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, got {self.retries}")
        if not 0 <= self.retry_wait_s <= 86_400:
            raise ValueError(f"the wait before a retry must be 0 to 86400 s, got {self.retry_wait_s}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"name must be of letters, digits, - and _, got {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class Try:
    """One driver of a night."""

    job_id: str
    exit_status: int  # the driver's own; FAILED where nobody saw it end
    message: str  # its last line, or why there is none; empty where it is done
    wall_s: float

    @property
    def may_resume(self) -> bool:
        """Whether the same command may end otherwise: it failed, or was killed by anything but SIGTERM."""
        return self.exit_status == FAILED or (self.exit_status > 128 and self.exit_status != termination.TERMINATED)


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a night came to."""

    tries: list[Try]  # one or more
    records: list[dict[str, Any]]  # of the runs that it finished, the oldest first

    @property
    def exit_status(self) -> int:
        """That of the last driver."""
        return self.tries[-1].exit_status


def run_night(command: Sequence[str], out: Location, options: NightOptions) -> Night:
    """Run a command of this package, such as `tag_catalogue …`, until it ends with a status that a retry cannot change.

    Args:
        command: the command and its flags.
        out: where the command writes the records of its runs.
        options: how often it is tried.

    Raises:
        InputError: OUT cannot be read, or the cluster does not answer, refuses the token, or has another version of
            Ray; no work was done.
    """
    check_reachable(out)
    with as_input_error(out):
        before = record_names(out)
    tries: list[Try] = []
    while not tries or (tries[-1].may_resume and len(tries) <= options.retries):
        if tries:
            log.event("retry", f"retry {len(tries)} of {options.retries} in {options.retry_wait_s:g} s")
            time.sleep(options.retry_wait_s)
        tries.append(_try(command, options.name, {one.job_id for one in tries}))
    return Night(tries=tries, records=_read_records(out, before))


def _read_records(out: Location, before: set[str]) -> list[dict[str, Any]]:
    """The records that were not there before, the oldest first. A store that fails now changes no exit status."""
    try:
        with as_input_error(out):
            return list(read_records(out, record_names(out) - before))[::-1]
    except InputError as error:
        log.warning(f"the records of the night cannot be read: {error}")
        return []


def _try(command: Sequence[str], name: str, taken: set[str]) -> Try:
    """Run a driver.

    Args:
        taken: the ids of the drivers before.
    """
    address = job_server.named_address()
    start_s = time.monotonic()
    try:
        if address is None:
            ended = _run_here(command, job_server.next_id(job_server.dated_id(name), taken))
        else:
            ended = job_server.JobServer(address).run(["python", "-m", "mtl_core", *command], name)
    except (InputError, OSError) as error:
        if not taken and isinstance(error, InputError):
            raise
        ended = job_server.EndedJob(job_id=name, exit_status=None, log="", message=f"failed: {error}")
    last_lines = _LAST_LINE.findall("\n".join(map(log.message_of, ended.log.splitlines())))
    status = FAILED if ended.exit_status is None else ended.exit_status
    message = "" if status == 0 else last_lines[-1] if last_lines else ended.message
    message = log.hide_credentials(message)
    return Try(job_id=ended.job_id, exit_status=status, message=message, wall_s=round(time.monotonic() - start_s, 1))


def _run_here(command: Sequence[str], job_id: str) -> job_server.EndedJob:
    """Run the command in a process of this machine, whose output is that of this process's stderr, too.

    A process of its own: one that the system kills for its memory does not take the retries with it.
    """
    lines: deque[str] = deque(maxlen=job_server.LOG_LINES)
    with contextlib.ExitStack() as stack:
        with termination.deferred():
            driver = subprocess.Popen(
                [sys.executable, "-m", "mtl_core", *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            stack.enter_context(_terminated_with_this_process(driver))
            reader = threading.Thread(target=_copy, args=(driver.stdout, lines.append), daemon=True)
            reader.start()
        status = driver.wait()
    reader.join(_OUTPUT_S)
    message = f"exit status {status}"
    if status < 0:  # not every signal has a name
        message = f"the driver was ended by signal {-status}: {signal.strsignal(-status)}"
    return job_server.EndedJob(
        job_id=job_id, exit_status=128 - status if status < 0 else status, log="".join(lines), message=message
    )


@contextlib.contextmanager
def _terminated_with_this_process(driver: subprocess.Popen[str]) -> Iterator[None]:
    """End a driver if SIGINT or SIGTERM ends this process while the body runs."""
    with termination.cleanup(driver.terminate):
        try:
            yield
        except KeyboardInterrupt:
            driver.terminate()
            raise


def _copy(output: TextIO, keep: Callable[[str], None]) -> None:
    """Pass a driver's lines on to stderr, and keep them."""
    for line in output:
        sys.stderr.write(line)
        keep(line)


def describe(night: Night) -> str:
    """A night in one line."""
    last = night.tries[-1]
    tagged, failed = (sum(run[name] for run in night.records) for name in ("tagged", "failed"))
    tries = f" in {len(night.tries)} tries" if len(night.tries) > 1 else ""
    seconds = sum(one.wall_s for one in night.tries)
    return (
        f"{last.job_id}: exit status {last.exit_status}{f' ({last.message})' if last.message else ''}; "
        f"{tagged:,} tagged, {failed:,} failed; {seconds:,.0f} s{tries}"
    )
