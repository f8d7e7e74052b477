"""Concurrent reads and writes of many small files. A single one mostly waits for the store."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

PARALLEL_FILES = 8
PARALLEL_SMALL_FILES = 32  # of some kB: each takes about 30 ms on S3, and a night leaves hundreds of thousands

Item = TypeVar("Item")
Result = TypeVar("Result")


def bounded_map(
    function: Callable[[Item], Result], items: Iterable[Item], max_concurrency: int = PARALLEL_FILES
) -> Iterator[Result]:
    """Like `map`, with calls in threads. Results keep the order of the items; an error stops the iteration.

    Args:
        function: is called once for each item.
        items: are read no further ahead than the calls need.
        max_concurrency: calls that run, or whose results wait to be consumed, at a time.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_concurrency) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= max_concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
