"""Prefetcher: downloads tracks in threads, ahead of their use.

The number and the total size of the downloads that are pending or not yet taken are bounded. Downloads start in the
order of `submit`, and results must be taken in that order: then the next result is always being downloaded, however
small the bounds are.
"""

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mtl_core.audio.source import WHOLE_BYTES, Source, open_track
from mtl_core.errors import TrackError

MAX_TRACKS = 16  # at once: downloading a short file takes longer than decoding it
MAX_BYTES = 4 * WHOLE_BYTES

Row = dict[str, Any]


@dataclass(eq=False)
class PendingFetch:
    """A track that was submitted and whose result is not yet taken.

    Args:
        row: of a manifest.
        n_bytes: memory that it takes, or will take when it is downloaded.
        source: its audio; None until the download starts.
    """

    row: Row
    n_bytes: int
    source: "Future[Source] | None" = None


class Prefetcher:
    """Downloads tracks for one worker.

    Args:
        max_tracks: how many may be pending or downloaded and not yet taken.
        max_bytes: their total size. One track alone may be larger.
    """

    def __init__(self, max_tracks: int = MAX_TRACKS, max_bytes: int = MAX_BYTES) -> None:
        self._max_tracks, self._max_bytes = max_tracks, max_bytes
        self._threads = ThreadPoolExecutor(max_tracks, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._waiting: deque[PendingFetch] = deque()
        self._started: set[PendingFetch] = set()

    def submit(self, rows: Iterable[Row]) -> deque[PendingFetch]:
        """Fetch tracks, after those of earlier calls.

        Args:
            rows: each with `uri` (and, where known, `content_id` and `size_bytes`), or with the audio itself in
                `bytes`, for which nothing is downloaded.

        Returns:
            A fetch for each row. Call `result` on each, in this order, or `cancel` on all that are left.
        """
        fetches = deque(PendingFetch(row, _expected_bytes(row)) for row in rows)
        with self._lock:
            self._waiting.extend(fetches)
            self._start_allowed()
        return fetches

    def result(self, fetch: PendingFetch) -> Source:
        """Wait for a track's audio and return it, as `source.open_track` does. It no longer counts against the bounds.

        Raises:
            TrackError: as `source.open_track` does.
        """
        assert fetch.source is not None, "results must be taken in the order of submit"
        try:
            return fetch.source.result()
        finally:
            fetch.source = None
            self.cancel([fetch])

    def cancel(self, fetches: Iterable[PendingFetch]) -> None:
        """Drop these fetches: their results are let go, and downloads that have not started never will."""
        cancelled = set(fetches)
        with self._lock:
            self._started -= cancelled
            self._waiting = deque(fetch for fetch in self._waiting if fetch not in cancelled)
            self._start_allowed()

    def _start_allowed(self) -> None:
        """Start the downloads that the bounds allow. The caller holds the lock."""
        while self._waiting and self._is_allowed(self._waiting[0].n_bytes):
            fetch = self._waiting.popleft()
            self._started.add(fetch)
            fetch.source = self._threads.submit(self._open, fetch)

    def _is_allowed(self, n_bytes: int) -> bool:
        if not self._started:
            return True
        total_bytes = sum(fetch.n_bytes for fetch in self._started)
        return len(self._started) < self._max_tracks and total_bytes + n_bytes <= self._max_bytes

    def _open(self, fetch: PendingFetch) -> Source:
        row = fetch.row
        if row.get("bytes") is not None:
            return bytes(row["bytes"])
        if row.get("uri") is None:
            raise TrackError("fetch", "not_found", "the row has neither uri nor bytes")
        source = open_track(row["uri"], row.get("content_id"))
        with self._lock:
            fetch.n_bytes = len(source) if isinstance(source, bytes) else 0
            self._start_allowed()
        return source


def _expected_bytes(row: Row) -> int:
    """The memory that a download will take; a track of unknown size counts as the largest that is fetched whole."""
    if row.get("bytes") is not None:
        return 0  # the caller holds them anyway
    size = row.get("size_bytes")
    return WHOLE_BYTES if size is None else min(size, WHOLE_BYTES)
