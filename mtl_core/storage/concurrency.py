"""Ahead: many small files are waited for rather than read, so several are under way at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

PARALLEL_FILES = 8  # under way at once
PARALLEL_SMALL_FILES = (
    32  # of some kilobytes: each is waited for some 30 ms on S3, and a night leaves hundreds of thousands
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def bounded_map(
    function: Callable[[Item], Result], items: Iterable[Item], calls: int = PARALLEL_FILES
) -> Iterator[Result]:
    """`map`, with at most so many calls under way, in threads, or waiting to be taken; an error stops it."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(calls) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= calls:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
