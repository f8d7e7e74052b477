"""Spent: what the stages of a worker's work cost."""

import contextlib
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Wall seconds by stage, and CPU seconds of all."""

    seconds: dict[str, float]
    cpu_s: float

    def __add__(self, other: "Spent") -> "Spent":
        seconds = Counter(self.seconds)
        seconds.update(other.seconds)
        return Spent(seconds=dict(seconds), cpu_s=round(self.cpu_s + other.cpu_s, 4))


class Stopwatch:
    """Times the stages of this process.

    Args:
        others_cpu_s: CPU seconds so far of other processes that work for this one.
    """

    def __init__(self, others_cpu_s: Callable[[], float] = lambda: 0.0) -> None:
        self._others_cpu_s = others_cpu_s
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the body's wall seconds to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

    def spent(self, before: Spent | None = None) -> Spent:
        """What was spent since `before`, or in all."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = own.ru_utime + own.ru_stime + self._others_cpu_s()
        if before is None:
            return Spent(seconds=dict(self._seconds), cpu_s=cpu_s)
        seconds = {stage: round(s - before.seconds.get(stage, 0), 4) for stage, s in self._seconds.items()}
        return Spent(seconds=seconds, cpu_s=round(cpu_s - before.cpu_s, 4))
