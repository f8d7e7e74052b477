"""Concurrent reads and writes of many small files. A single one mostly waits for the store."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

PARALLEL_SMALL_FILES = 32  # of some kB: each takes about 30 ms on S3, and a night leaves hundreds of thousands

Item = TypeVar("Item")
Result = TypeVar("Result")


def bounded_map(
    function: Callable[[Item], Result], items: Iterable[Item], max_concurrency: int = 8
) -> Iterator[Result]:
    """Like `map`, with calls in threads. Results keep the order of the items; an error stops the iteration.

    At most `max_concurrency` calls run, or have results that are not yet consumed, and no more items are read.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_concurrency) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= max_concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
