"""Prefetcher: downloads tracks in threads, ahead of their use.

The number and the total size of the downloads that are pending or not yet taken are bounded. Downloads start in the
order of `submit`, and results must be taken in that order: then the next result is always being downloaded, however
small the bounds are.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mtl_core.audio.ranged_file import RangedFile
from mtl_core.audio.source import WHOLE_BYTES, Plan, Source, open_track
from mtl_core.errors import TrackError
from mtl_core.storage.location import Location

MAX_TRACKS = 16  # at once: downloading a short file takes longer than decoding it
MAX_BYTES = 4 * WHOLE_BYTES

Row = dict[str, Any]


@dataclass(eq=False)
class PendingFetch:
    """A track that was submitted and whose result is not yet taken."""

    row: Row  # of a manifest
    n_bytes: int  # memory that it takes, or will take when it is downloaded
    source: "Future[Source] | None" = None  # None until the download starts


class Prefetcher:
    """Downloads tracks for one worker: at most `max_tracks`, of `max_bytes` together; one alone may be larger.

    Tracks outside the `allowed` places fail; empty: anywhere. `plan` is that of `source.open_track`.
    """

    def __init__(
        self,
        max_tracks: int = MAX_TRACKS,
        max_bytes: int = MAX_BYTES,
        allowed: Sequence[Location] = (),
        plan: Plan | None = None,
    ) -> None:
        self._max_tracks, self._max_bytes, self._allowed, self._plan = max_tracks, max_bytes, allowed, plan
        self._threads = ThreadPoolExecutor(max_tracks, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._waiting: deque[PendingFetch] = deque()
        self._started: set[PendingFetch] = set()
        self._dropped: deque[PendingFetch] = deque()

    def submit(self, rows: Iterable[Row]) -> deque[PendingFetch]:
        """Fetch tracks, after those of earlier calls.

        A row has `uri` (and, where known, `content_id` and `size_bytes`), or the audio itself in `bytes`, for which
        nothing is downloaded.

        Returns:
            A fetch for each row. Call `result` on each, in this order, or `cancel` or `drop` on all that are left.
        """
        fetches = deque(PendingFetch(row, _expected_bytes(row)) for row in rows)
        with self._lock:
            self._waiting.extend(fetches)
            self._start_allowed()
        return fetches

    def result(self, fetch: PendingFetch) -> Source:
        """Wait for a track's audio, and return it or raise TrackError, as `source.open_track` does.

        The track no longer counts against the bounds.
        """
        with self._lock:
            self._start_allowed()  # those that were dropped may have been in its way
        assert fetch.source is not None, "results must be taken in the order of submit"
        try:
            return fetch.source.result()
        finally:
            fetch.source = None
            self.cancel([fetch])

    def cancel(self, fetches: Iterable[PendingFetch]) -> None:
        """Give up these fetches: their results are released, and downloads that have not started never will."""
        self.drop(fetches)
        with self._lock:
            self._start_allowed()

    def drop(self, fetches: Iterable[PendingFetch]) -> None:
        """The same with the next call of another method. Takes no lock, so it can be called wherever Python collects
        garbage: also while this thread, or one that waits for it, holds a lock."""
        self._dropped.extend(fetches)

    def _start_allowed(self) -> None:
        """Start the downloads that the bounds allow. The caller holds the lock."""
        dropped = {self._dropped.popleft() for _ in range(len(self._dropped))}
        if dropped:
            self._started -= dropped
            self._waiting = deque(fetch for fetch in self._waiting if fetch not in dropped)
        while self._waiting:
            n_bytes = self._waiting[0].n_bytes + sum(fetch.n_bytes for fetch in self._started)
            if self._started and (len(self._started) >= self._max_tracks or n_bytes > self._max_bytes):
                return
            fetch = self._waiting.popleft()
            self._started.add(fetch)
            fetch.source = self._threads.submit(self._open, fetch)

    def _open(self, fetch: PendingFetch) -> Source:
        row = fetch.row
        if row.get("bytes") is not None:
            return bytes(row["bytes"])
        if not row.get("uri"):
            raise TrackError("fetch", "not_found", "the row has neither uri nor bytes")
        source = open_track(
            row["uri"], row.get("content_id"), self._allowed, size_bytes=row.get("size_bytes"), plan=self._plan
        )
        with self._lock:
            held = source.held_bytes if isinstance(source, RangedFile) else 0
            fetch.n_bytes = len(source) if isinstance(source, bytes) else held
            self._start_allowed()
        return source


def _expected_bytes(row: Row) -> int:
    """The memory that a download will take; a track of unknown size counts as the largest that is fetched whole."""
    if row.get("bytes") is not None:
        return 0  # the caller holds them anyway
    size = row.get("size_bytes")
    return WHOLE_BYTES if size is None else min(size, WHOLE_BYTES)
