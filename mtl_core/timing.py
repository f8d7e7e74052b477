"""Spent: what the stages of a worker's work cost."""

import contextlib
import resource
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Wall seconds by stage, and CPU seconds of all."""

    seconds: dict[str, float]
    cpu_s: float

    def __add__(self, other: "StageTimes") -> "StageTimes":
        seconds = Counter(self.seconds)
        seconds.update(other.seconds)
        return StageTimes(seconds=dict(seconds), cpu_s=round(self.cpu_s + other.cpu_s, 4))


ZERO = StageTimes(seconds={}, cpu_s=0.0)


class StageTimer:
    """Times the stages of this process, in whatever threads they run.

    Args:
        others_cpu_s: CPU seconds so far of other processes that work for this one.
    """

    def __init__(self, others_cpu_s: Callable[[], float] = lambda: 0.0) -> None:
        self._others_cpu_s = others_cpu_s
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._before = self._spent()

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the body's wall seconds to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[stage] += time.perf_counter() - start

    def delta(self) -> StageTimes:
        """What was spent since the last lap: laps add up to the whole, whoever takes them."""
        with self._lock:
            before, self._before = self._before, self._spent()
            seconds = {stage: round(s - before.seconds.get(stage, 0), 4) for stage, s in self._before.seconds.items()}
            return StageTimes(seconds=seconds, cpu_s=round(self._before.cpu_s - before.cpu_s, 4))

    def _spent(self) -> StageTimes:
        own = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = own.ru_utime + own.ru_stime + self._others_cpu_s()
        return StageTimes(seconds=dict(self._seconds), cpu_s=cpu_s)
