"""Progress: what a person sees of a run: tracks done of planned, failures, tracks a second, time left.

On a terminal it is one line that is replaced; in a log it is a line, or an event, every 15 seconds.
"""

import sys
import time
from collections.abc import Generator, Iterable
from datetime import timedelta
from typing import Any

from mtl_core import log

TERMINAL_EVERY_S = 0.5
LOG_EVERY_S = 15.0


class Progress:
    """Counts tracks up to a known number.

    Args:
        what: the verb of the line, "tagging".
        planned: tracks of the run.
        done: tracks that an earlier try of this run did. The rate does not include them.
    """

    def __init__(self, what: str, planned: int, done: int = 0) -> None:
        self._what, self._planned, self._before = what, planned, done
        self._done, self._failed = done, 0
        self._on_terminal = log.current_format() == "text" and sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        if done:
            self._print(f"{what}: resuming an unfinished run, {done:,} of {planned:,} tracks are done", end="\n")

    def watch(self, counts: Iterable[dict[str, Any]]) -> Generator[dict[str, Any], None, None]:
        """Pass on the counts of shards, "done" and "failed", and show them as they come.

        Close the result where not all counts are taken. Then Ray Data's threads end; if one of them still runs when Ray
        is shut down, Ray ends the process before it can say why it failed.
        """
        rows = iter(counts)
        try:
            for row in rows:
                self.add(row["done"] + row["failed"], row["failed"])
                yield row
        finally:
            if isinstance(rows, Generator):
                rows.close()

    def add(self, tracks: int, failed: int = 0) -> None:
        """Count tracks that have ended, `failed` of them by a failure."""
        self._done, self._failed = self._done + tracks, self._failed + failed
        now = time.monotonic()
        every_s = TERMINAL_EVERY_S if self._on_terminal else LOG_EVERY_S
        if now - self._last >= every_s or self._done == self._planned:
            self._last = now
            self._print(self._line(now), end="\r" if self._on_terminal and self._done < self._planned else "\n")

    def _line(self, now: float) -> str:
        rate = (self._done - self._before) / max(now - self._start, 1e-3)
        left = timedelta(seconds=round((self._planned - self._done) / rate)) if rate else "?"
        return (
            f"{self._what}: {self._done:,} of {self._planned:,} tracks ({self._done / max(self._planned, 1):.0%}), "
            f"{self._failed:,} failed, {rate:.1f} tracks/s, {left} left"
        )

    def _print(self, line: str, end: str) -> None:
        if end == "\n":
            log.event("progress", line, planned=self._planned, done=self._done, failed=self._failed)
        else:
            print(f"{line:<100}", end=end, file=sys.stderr, flush=True)
