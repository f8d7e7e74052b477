"""Timing: wall seconds of each stage of a worker, and its CPU seconds."""

import contextlib
import resource
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Wall seconds by stage, and CPU seconds of all stages together."""

    seconds: dict[str, float]
    cpu_s: float

    def __add__(self, other: "StageTimes") -> "StageTimes":
        seconds = Counter(self.seconds)
        seconds.update(other.seconds)
        return StageTimes(seconds=dict(seconds), cpu_s=round(self.cpu_s + other.cpu_s, 4))


ZERO = StageTimes(seconds={}, cpu_s=0.0)


class StageTimer:
    """Measures the stages of this process, in any thread; `others_cpu_s` returns the CPU seconds of its children."""

    def __init__(self, others_cpu_s: Callable[[], float] = lambda: 0.0) -> None:
        self._others_cpu_s = others_cpu_s
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._before = self._total()

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
        """The time since the last call, from any thread. All deltas add up to the total."""
        with self._lock:
            before, self._before = self._before, self._total()
            seconds = {stage: round(s - before.seconds.get(stage, 0), 4) for stage, s in self._before.seconds.items()}
            return StageTimes(seconds=seconds, cpu_s=round(self._before.cpu_s - before.cpu_s, 4))

    def _total(self) -> StageTimes:
        own = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = own.ru_utime + own.ru_stime + self._others_cpu_s()
        return StageTimes(seconds=dict(self._seconds), cpu_s=cpu_s)
