"""Track: from a manifest's row to its segments, or to the reason why not.

fetch -> decode -> features, the one road of `extract_mels` and `tag_catalogue`. The next tracks are fetched while one
is decoded; a `TrackError` is caught here, and becomes data.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from mtl_core.audio.decoder_process import DECODER, Decoder, DecoderLimits
from mtl_core.audio.front_end import FrontEnd, Segments, log_mel_segments
from mtl_core.audio.prefetch import PendingFetch, Prefetcher, Row
from mtl_core.audio.source import as_fetch_error
from mtl_core.errors import TrackError
from mtl_core.timing import StageTimer

Result = TypeVar("Result")


@dataclass(frozen=True)
class Track:
    """A manifest's row that was read: its segments and its length in seconds."""

    row: Row
    segments: Segments
    duration_s: float


@dataclass(frozen=True)
class FailedTrack:
    """A manifest's row that could not be worked on, and why."""

    row: Row
    error: TrackError

    def as_row(self, *, attempts: int, model_id: str | None, run_id: str) -> Row:
        """A row of `schema.FAILURES`."""
        return {
            "track_id": self.row["track_id"],
            "uri": self.row["uri"],
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
    """Reads tracks for one worker; owns its decoder child, its fetching threads and its stopwatch, `watch`.

    Args:
        front_end: what the segments are made with.
        limits: of the decoder child, for one track.
        decoder: the module that is run as the child, see `decoding.serve`.
        draws, seed: random segment starts instead of the fixed grid, see `features.log_mel_segments`.
    """

    def __init__(
        self, front_end: FrontEnd, limits: DecoderLimits, *, decoder: str = DECODER, draws: int = 0, seed: int = 0
    ) -> None:
        self._front_end, self._draws, self._seed = front_end, draws, seed
        self._decoder = Decoder(limits, decoder)
        self._prefetcher = Prefetcher()
        self._order = threading.Lock()
        self._asking, self._using = ThreadPoolExecutor(1, "ask"), ThreadPoolExecutor(1, "use")
        self.timer = StageTimer(self._decoder.cpu_s)  # of fetching, only what was waited for

    def close(self) -> None:
        """End the decoder child. A closed reader cannot be used again."""
        self._decoder.close()

    def read(self, rows: list[Row]) -> Iterator[Track | FailedTrack]:
        """The tracks of `rows`, in their order; they are fetched from now on."""
        return self._tracks(self._prefetcher.submit(rows))

    def serve_in_order(
        self, rows: Callable[[], list[Row]], use: Callable[[Iterator[Track | FailedTrack]], Result]
    ) -> Result:
        """`use` of the tracks of `rows`, for callers in several threads.

        They are served one after another, in the order in which they came, and the rows and the audio of the next are
        fetched meanwhile: between two shards nobody waits for a store.
        """
        with self._order:
            asked = self._asking.submit(lambda: self._prefetcher.submit(rows()))
            used = self._using.submit(self._use, asked, use)
        return used.result()

    def _use(
        self, asked: "Future[deque[PendingFetch]]", use: Callable[[Iterator[Track | FailedTrack]], Result]
    ) -> Result:
        with contextlib.closing(self._tracks(asked.result())) as tracks:  # whatever happens, the next has its turn
            return use(tracks)

    def _tracks(self, fetches: deque[PendingFetch]) -> Generator[Track | FailedTrack, None, None]:
        try:
            while fetches:
                one = fetches.popleft()
                try:
                    yield self._track(one)
                except TrackError as error:
                    yield FailedTrack(one.row, error)
        finally:
            self._prefetcher.cancel(fetches)

    def _track(self, one: PendingFetch) -> Track:
        row = one.row
        with self.timer.timed("fetch"):
            source = self._prefetcher.result(one)
        with self.timer.timed("decode"), as_fetch_error(row["uri"]):  # a local file is read by the decoder
            recording = self._decoder.decode(source)
        with self.timer.timed("features"):
            segments = log_mel_segments(
                recording, self._front_end, draws=self._draws, seed=self._seed, track_id=row["track_id"]
            )
        return Track(row, segments, recording.duration_s)
