"""A map whose calls run in threads: order, bound, and errors."""

import threading
import time
from collections.abc import Iterator

import pytest

from mtl_core.storage.concurrency import bounded_map


def test_results_keep_the_order_of_the_items() -> None:
    def wait_and_double(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return 2 * number

    assert list(bounded_map(wait_and_double, range(20), 4)) == [2 * number for number in range(20)]
    assert list(bounded_map(wait_and_double, [], 4)) == []


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_items_are_read_or_run_than_the_bound(bound: int) -> None:
    lock, n_read, n_running, n_consumed, max_running = threading.Lock(), 0, 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal n_read
        for number in range(12):
            n_read += 1
            yield number

    def count(number: int) -> int:
        nonlocal n_running, max_running
        with lock:
            n_running += 1
            max_running = max(max_running, n_running)
        time.sleep(0.01)
        with lock:
            n_running -= 1
        return number

    for _ in bounded_map(count, items(), bound):
        assert n_read - n_consumed <= bound
        n_consumed += 1
    assert (n_consumed, max_running) == (12, bound)


def test_an_error_ends_the_iteration_and_no_further_item_is_read() -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    def fail_at_3(number: int) -> int:
        if number == 3:
            raise OSError("the store is gone")
        return number

    results = []
    with pytest.raises(OSError, match="the store is gone"):
        for result in bounded_map(fail_at_3, items(), 2):
            results.append(result)
    assert results == [0, 1, 2]
    assert len(read) <= 5
