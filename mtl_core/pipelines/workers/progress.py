"""Progress: what a person sees of a run, on a terminal and in a log.

On a terminal one line that is written anew, in a log a line now and then: tracks done of planned, failures, rate, time
left.
"""

import sys
import time
from datetime import timedelta

TERMINAL_EVERY_S = 0.5
LOG_EVERY_S = 15.0
ON_TERMINAL = sys.stderr.isatty()  # asked before `cluster.connected` puts a filter there


class Progress:
    """Counts tracks towards a known number.

    Args:
        what: the verb of the line, "tagging".
        planned: tracks of the run.
        done: of them, those that an earlier try of this run did; they do not count into the rate.
    """

    def __init__(self, what: str, planned: int, done: int = 0) -> None:
        self._what, self._planned, self._before = what, planned, done
        self._done, self._failed = done, 0
        self._start = self._last = time.monotonic()
        if done:
            self._print(f"{what}: taking up an unfinished run, {done:,} of {planned:,} tracks are done", end="\n")

    def add(self, tracks: int, failed: int) -> None:
        """Count tracks that came to their end, failed ones among them."""
        self._done, self._failed = self._done + tracks, self._failed + failed
        now = time.monotonic()
        if now - self._last >= (TERMINAL_EVERY_S if ON_TERMINAL else LOG_EVERY_S) or self._done == self._planned:
            self._last = now
            self._print(self._line(now), end="\r" if ON_TERMINAL and self._done < self._planned else "\n")

    def _line(self, now: float) -> str:
        rate = (self._done - self._before) / max(now - self._start, 1e-3)
        left = timedelta(seconds=round((self._planned - self._done) / rate)) if rate else "?"
        return (
            f"{self._what}: {self._done:,} of {self._planned:,} tracks ({self._done / max(self._planned, 1):.0%}), "
            f"{self._failed:,} failed, {rate:.1f} tracks/s, {left} left"
        )

    def _print(self, line: str, end: str) -> None:
        print(f"{line:<100}".rstrip() if end == "\n" else f"{line:<100}", end=end, file=sys.stderr, flush=True)
