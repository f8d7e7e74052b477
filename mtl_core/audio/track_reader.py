"""Track reader: a manifest's row -> the segments of its track, or the reason why there are none.

Fetch, decode, compute the mels: extraction and tagging share this one path. The next tracks are fetched while one is
decoded. A `TrackError` is caught here and becomes data.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ, Recording
from mtl_core.audio.decoding.decoder_process import DECODER, Decoder
from mtl_core.audio.front_end import FrontEnd, Segments, log_mel_segments
from mtl_core.audio.prefetch import PendingFetch, Prefetcher, Row
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.source import as_fetch_error
from mtl_core.errors import TrackError
from mtl_core.timing import StageTimer

MOST_LOST = 0.5  # of what is decoded of a track: it fails where damage has taken more

Result = TypeVar("Result")


@dataclass(frozen=True)
class Track:
    """A track that was read: its row of the manifest, and its segments."""

    row: Row
    segments: Segments
    duration_s: float  # of the whole recording
    lost_s: float = 0.0  # of what was decoded: damage that was passed over


@dataclass(frozen=True)
class FailedTrack:
    """A track that failed: its row of the manifest, and why."""

    row: Row
    error: TrackError

    def as_row(self, *, attempts: int, model_id: str | None, run_id: str) -> Row:
        """A row of `schema.FAILURES`.

        `attempts` counts the runs in which the track failed, this one included. `model_id` is None in an extraction.
        """
        return {
            "track_id": self.row["track_id"],
            "uri": self.row.get("uri"),
            "content_id": self.row.get("content_id"),
            "stage": self.error.stage,
            "error": self.error.error,
            "message": self.error.message,
            "attempts": attempts,
            "permanent": self.error.permanent,
            "model_id": model_id,
            "run_id": run_id,
            "failed_at": datetime.now(UTC),
        }


class TrackReader:
    """Reads tracks for one worker. It has a decoder child, fetching threads, and a `timer` of its stages.

    A row has `track_id`, and what `Prefetcher.submit` needs.

    Args:
        front_end: makes the segments.
        limits: what a track may be, and what reading it may cost.
        decoder: module of the decoder process, see `decoder_process.Decoder`.
        draws: random starts a segment slot; 0 is the fixed grid. See `front_end.log_mel_segments`.
        seed: of the random starts.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        limits: ReadLimits | None = None,
        *,
        decoder: str = DECODER,
        draws: int = 0,
        seed: int = 0,
    ) -> None:
        self._front_end, self._draws, self._seed = front_end, draws, seed
        limits = limits or ReadLimits()
        self._decoder = Decoder(limits.decoder_limits(), decoder)
        self._prefetcher = Prefetcher(allowed=limits.allowed())
        self._lock = threading.Lock()
        self._submitter, self._consumer = ThreadPoolExecutor(1, "submit"), ThreadPoolExecutor(1, "consume")
        self.timer = StageTimer(self._decoder.cpu_s)  # its "fetch" is the time spent waiting for a download

    def close(self) -> None:
        """End the decoder child. A closed reader cannot be used again."""
        self._decoder.close()

    def read(self, rows: list[Row]) -> Iterator[Track | FailedTrack]:
        """The tracks of `rows`, in their order. Fetching starts now."""
        return self._tracks(self._prefetcher.submit(rows))

    def serve_in_order(
        self, rows: Callable[[], list[Row]], use: Callable[[Iterator[Track | FailedTrack]], Result]
    ) -> Result:
        """Read the tracks of several callers, one caller after another; for callers in several threads.

        While one caller is served, the rows and the audio of the next are fetched: no time is lost between two shards.
        `rows` and `use` are called in the order of the calls to this method. What one of them raises is raised here;
        the next caller is served all the same. What `use` returns is returned.
        """
        with self._lock:
            submitted = self._submitter.submit(lambda: self._prefetcher.submit(rows()))

            def consume() -> Result:
                fetches = submitted.result()
                try:
                    return use(self._tracks(fetches))
                finally:
                    self._prefetcher.cancel(fetches)  # those that `use` has not read

            result = self._consumer.submit(consume)
        return result.result()

    def _tracks(self, fetches: deque[PendingFetch]) -> Iterator[Track | FailedTrack]:
        try:
            while fetches:
                fetch = fetches.popleft()
                try:
                    yield self._track(fetch)
                except TrackError as error:
                    yield FailedTrack(fetch.row, error)
        finally:
            self._prefetcher.cancel(fetches)

    def _track(self, fetch: PendingFetch) -> Track:
        row = fetch.row
        with self.timer.timed("fetch"):
            source = self._prefetcher.result(fetch)
        draws: dict[str, Any] = {"draws": self._draws, "seed": self._seed, "track_id": row["track_id"]}
        # Decoding reads local files and large objects.
        with self.timer.timed("decode"), as_fetch_error(row.get("uri") or row["track_id"]):
            rate_hz, n_frames = self._decoder.open(source)
            recording = self._decoder.read(self._front_end.stretches(n_frames, rate_hz, **draws))
        _check_lost(recording)
        with self.timer.timed("features"):
            segments = log_mel_segments(recording, self._front_end, **draws)
        return Track(row, segments, recording.duration_s, recording.lost_s)


def _check_lost(recording: Recording) -> None:
    asked_s = sum(len(excerpt.samples) for excerpt in recording.excerpts) / SAMPLE_RATE_HZ
    if recording.lost_s > MOST_LOST * asked_s:
        message = f"{recording.lost_s:.1f} of {asked_s:.1f} s could not be decoded: allowed is {MOST_LOST:.0%}"
        raise TrackError("decode", "corrupt", message)
