"""Truths about fetching ahead: in order, within bounds, and never stuck."""

import threading
import time

import pytest

from mtl_core.audio import prefetch
from mtl_core.audio.prefetch import Prefetcher
from mtl_core.errors import TrackError


class Store:
    """Stands for `open_track`: a uri is the size of its track; notes what was asked for, waits where it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, uri: str, expected_content_id: str | None = None) -> bytes:
        self.asked.append(uri)
        assert self.open.wait(10)
        if uri == "missing":
            raise TrackError("fetch", "not_found", uri)
        return bytes(int(uri))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(prefetch, "open_track", made)
    return made


def rows(*sizes: int) -> list[dict]:
    return [{"uri": str(size), "size_bytes": size} for size in sizes]


def settled(store: Store, n: int) -> int:
    """How many tracks were asked for, once `n` were and a moment has passed."""
    deadline = time.monotonic() + 10
    while len(store.asked) < n and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    return len(store.asked)


def test_no_more_is_held_than_the_bounds_allow(store: Store) -> None:
    prefetcher = Prefetcher(most_tracks=4, most_bytes=100)
    fetches = prefetcher.submit(rows(40, 40, 40, 1, 1, 1, 1, 1))
    assert settled(store, 2) == 2, "a third one of 40 bytes is too much"
    assert len(prefetcher.result(fetches.popleft())) == 40  # type: ignore[arg-type]
    assert settled(store, 5) == 5, "40, 40, 1 and 1 are four"
    assert [len(prefetcher.result(one)) for one in fetches] == [40, 40, 1, 1, 1, 1, 1]  # type: ignore[arg-type]


def test_a_track_larger_than_the_bound_goes_alone(store: Store) -> None:
    prefetcher = Prefetcher(most_tracks=4, most_bytes=100)
    fetches = prefetcher.submit(rows(1000, 1))
    assert settled(store, 1) == 1
    assert [len(prefetcher.result(one)) for one in fetches] == [1000, 1]  # type: ignore[arg-type]


def test_a_size_that_nobody_told_counts_until_it_is_known(store: Store) -> None:
    prefetcher = Prefetcher(most_tracks=8, most_bytes=2 * prefetch.WHOLE_BYTES)
    store.open.clear()
    fetches = prefetcher.submit([{"uri": "10"}, {"uri": "10", "size_bytes": None}, *rows(10, 10)])
    assert settled(store, 2) == 2
    store.open.set()
    assert settled(store, 4) == 4
    prefetcher.cancel(fetches)


def test_a_failure_is_the_track_s_own_and_gives_its_room_back(store: Store) -> None:
    prefetcher = Prefetcher(most_tracks=1)
    first, second = prefetcher.submit([{"uri": "missing", "size_bytes": 5}, *rows(5)])
    with pytest.raises(TrackError, match="missing"):
        prefetcher.result(first)
    assert prefetcher.result(second) == bytes(5)


def test_what_nobody_takes_makes_room(store: Store) -> None:
    prefetcher = Prefetcher(most_tracks=2)
    abandoned, wanted = prefetcher.submit(rows(1, 1, 1, 1)), prefetcher.submit(rows(7, 7))
    prefetcher.result(abandoned.popleft())
    prefetcher.cancel(abandoned)
    assert [prefetcher.result(one) for one in wanted] == [bytes(7), bytes(7)]
    assert settled(store, 5) <= 5, "of those that were dropped, one was never begun"
