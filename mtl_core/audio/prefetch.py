"""Fetcher: tracks that are fetched while earlier ones are worked on.

Fetching is waiting, so it happens in threads; what it brings is held, so it is bounded. Tracks are begun in the order
in which they were asked for, and must be taken in it: then the next one to be taken is always under way, however little
the bounds leave room for.
"""

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mtl_core.audio.source import WHOLE_BYTES, Source, open_track

MAX_TRACKS = 16  # at once: short files are waited for longer than they are worked on
MAX_BYTES = 4 * WHOLE_BYTES

Row = dict[str, Any]


@dataclass(eq=False)
class PendingFetch:
    """A track to be taken.

    Args:
        row: of a manifest; without `size_bytes` it counts as large as a whole file can be until it is there.
        n_bytes: that it holds, or will.
        source: None before it is begun.
    """

    row: Row
    n_bytes: int
    source: "Future[Source] | None" = None


class Prefetcher:
    """Fetches tracks for one worker.

    Args:
        most_tracks, most_bytes: under way or there, and not taken yet; one track there may be whatever its size.
    """

    def __init__(self, most_tracks: int = MAX_TRACKS, most_bytes: int = MAX_BYTES) -> None:
        self._most_tracks, self._most_bytes = most_tracks, most_bytes
        self._threads = ThreadPoolExecutor(most_tracks, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._waiting: deque[PendingFetch] = deque()
        self._held: set[PendingFetch] = set()

    def submit(self, rows: Iterable[Row]) -> deque[PendingFetch]:
        """Fetch these tracks after all that were asked for before; each must be taken, or all that are left dropped."""
        asked = deque(PendingFetch(row, _expected_bytes(row)) for row in rows)
        with self._lock:
            self._waiting.extend(asked)
            self._begin()
        return asked

    def result(self, one: PendingFetch) -> Source:
        """A track's audio, as `track_source.open_track` gives it; waits for it. It is the caller's from now on.

        Raises:
            TrackError: as `track_source.open_track` does.
        """
        assert one.source is not None, "tracks are taken in their order"
        try:
            return one.source.result()
        finally:
            one.source = None
            self.cancel([one])

    def cancel(self, some: Iterable[PendingFetch]) -> None:
        """These are held no more, and those that are not begun will not be."""
        gone = set(some)
        with self._lock:
            self._held -= gone
            self._waiting = deque(one for one in self._waiting if one not in gone)
            self._begin()

    def _begin(self) -> None:
        """Begin what there is room for; the lock is held."""
        while self._waiting and self._has_room(self._waiting[0].n_bytes):
            one = self._waiting.popleft()
            self._held.add(one)
            one.source = self._threads.submit(self._open, one)

    def _has_room(self, n_bytes: int) -> bool:
        if not self._held:
            return True
        held = sum(one.n_bytes for one in self._held)
        return len(self._held) < self._most_tracks and held + n_bytes <= self._most_bytes

    def _open(self, one: PendingFetch) -> Source:
        data: bytes | None = one.row.get("bytes")
        source = open_track(one.row["uri"], one.row.get("content_id")) if data is None else data
        with self._lock:
            one.n_bytes = len(source) if isinstance(source, bytes) else 0
            self._begin()
        return source


def _expected_bytes(row: Row) -> int:
    size = row.get("size_bytes")
    return WHOLE_BYTES if size is None else min(size, WHOLE_BYTES)
