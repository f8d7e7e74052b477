"""Timing: wall seconds of each stage of a worker, its CPU seconds, and the bytes that it fetched."""

import contextlib
import resource
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Wall seconds by stage; CPU seconds and fetched bytes of all stages together."""

    seconds: dict[str, float]
    cpu_s: float
    fetched_bytes: int = 0

    def __add__(self, other: "StageTimes") -> "StageTimes":
        seconds = Counter(self.seconds)
        seconds.update(other.seconds)
        return StageTimes(
            seconds=dict(seconds),
            cpu_s=round(self.cpu_s + other.cpu_s, 4),
            fetched_bytes=self.fetched_bytes + other.fetched_bytes,
        )


ZERO = StageTimes(seconds={}, cpu_s=0.0)


class StageTimer:
    """Measures the stages of this process, in any thread; `others_cpu_s` returns the CPU seconds of its children."""

    def __init__(self, others_cpu_s: Callable[[], float] = lambda: 0.0) -> None:
        self._others_cpu_s = others_cpu_s
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._fetched_bytes = 0
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

    def add_fetched(self, n_bytes: int) -> None:
        """Count bytes that were fetched."""
        with self._lock:
            self._fetched_bytes += n_bytes

    def delta(self) -> StageTimes:
        """The time since the last call, from any thread. All deltas add up to the total."""
        with self._lock:
            before, self._before = self._before, self._total()
            seconds = {stage: round(s - before.seconds.get(stage, 0), 4) for stage, s in self._before.seconds.items()}
            return StageTimes(
                seconds=seconds,
                cpu_s=round(self._before.cpu_s - before.cpu_s, 4),
                fetched_bytes=self._before.fetched_bytes - before.fetched_bytes,
            )

    def _total(self) -> StageTimes:
        own = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = own.ru_utime + own.ru_stime + self._others_cpu_s()
        return StageTimes(seconds=dict(self._seconds), cpu_s=cpu_s, fetched_bytes=self._fetched_bytes)
