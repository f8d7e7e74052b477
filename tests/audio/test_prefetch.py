"""Tracks are fetched ahead in order and within bounds, and no call waits for ever."""

import threading
import time

import pytest

from mtl_core.audio import prefetch
from mtl_core.audio.prefetch import Prefetcher
from mtl_core.errors import TrackError


class Store:
    """Replaces `open_track`: a uri is the size of its track. It records the uris, and waits while `open` is not set."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, uri: str, *_: object, **__: object) -> bytes:
        self.uris.append(uri)
        assert self.open.wait(10)
        if uri == "missing":
            raise TrackError("fetch", "not_found", uri)
        return bytes(int(uri))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(prefetch, "open_track", store)
    return store


def rows(*sizes: int) -> list[dict]:
    return [{"uri": str(size), "size_bytes": size} for size in sizes]


def count_started(store: Store, n: int) -> int:
    """How many downloads have started, a moment after `n` have."""
    deadline = time.monotonic() + 10
    while len(store.uris) < n and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    return len(store.uris)


def test_no_more_is_downloaded_than_the_bounds_allow(store: Store) -> None:
    prefetcher = Prefetcher(max_tracks=4, max_bytes=100)
    fetches = prefetcher.submit(rows(40, 40, 40, 1, 1, 1, 1, 1))
    assert count_started(store, 2) == 2, "a third one of 40 bytes is too much"
    assert len(prefetcher.result(fetches.popleft())) == 40  # type: ignore[arg-type]
    assert count_started(store, 5) == 5, "40, 40, 1 and 1 are four"
    assert [len(prefetcher.result(fetch)) for fetch in fetches] == [40, 40, 1, 1, 1, 1, 1]  # type: ignore[arg-type]


def test_a_track_larger_than_the_bound_is_downloaded_alone(store: Store) -> None:
    prefetcher = Prefetcher(max_tracks=4, max_bytes=100)
    fetches = prefetcher.submit(rows(1000, 1))
    assert count_started(store, 1) == 1
    assert [len(prefetcher.result(fetch)) for fetch in fetches] == [1000, 1]  # type: ignore[arg-type]


def test_an_unknown_size_counts_as_large_until_the_track_is_downloaded(store: Store) -> None:
    prefetcher = Prefetcher(max_tracks=8, max_bytes=2 * prefetch.WHOLE_BYTES)
    store.open.clear()
    fetches = prefetcher.submit([{"uri": "10"}, {"uri": "10", "size_bytes": None}, *rows(10, 10)])
    assert count_started(store, 2) == 2
    store.open.set()
    assert count_started(store, 4) == 4
    prefetcher.cancel(fetches)


def test_a_failed_track_raises_alone_and_no_longer_counts(store: Store) -> None:
    prefetcher = Prefetcher(max_tracks=1)
    first, second = prefetcher.submit([{"uri": "missing", "size_bytes": 5}, *rows(5)])
    with pytest.raises(TrackError, match="missing"):
        prefetcher.result(first)
    assert prefetcher.result(second) == bytes(5)


def test_cancelled_fetches_no_longer_count(store: Store) -> None:
    prefetcher = Prefetcher(max_tracks=2)
    abandoned, wanted = prefetcher.submit(rows(1, 1, 1, 1)), prefetcher.submit(rows(7, 7))
    prefetcher.result(abandoned.popleft())
    prefetcher.cancel(abandoned)
    assert [prefetcher.result(fetch) for fetch in wanted] == [bytes(7), bytes(7)]
    assert count_started(store, 5) <= 5, "one of the cancelled downloads never started"


def test_bytes_in_the_row_are_returned_and_nothing_is_downloaded(store: Store) -> None:
    prefetcher = Prefetcher(max_tracks=4, max_bytes=1)
    fetches = prefetcher.submit([{"bytes": b"audio"}, {"bytes": b"", "uri": "5"}, {"bytes": None, "uri": "5"}])
    assert [prefetcher.result(fetch) for fetch in fetches] == [b"audio", b"", bytes(5)]
    assert store.uris == ["5"]


def test_a_row_with_neither_uri_nor_bytes_fails(store: Store) -> None:
    prefetcher = Prefetcher()
    (fetch,) = prefetcher.submit([{"track_id": "a"}])
    with pytest.raises(TrackError, match="neither uri nor bytes"):
        prefetcher.result(fetch)
