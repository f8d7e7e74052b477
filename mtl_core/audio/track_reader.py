"""Track reader: a manifest's row -> the segments of its track, or the reason why there are none.

Fetch, decode, compute the mels: extraction and tagging share this one path. The next tracks are fetched while one is
decoded. A track is opened; then its segments are read, all at once or in rounds, as many as its reader needs.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from mtl_core.audio.decoding.decode import SAMPLE_RATE_HZ, Stretches
from mtl_core.audio.decoding.decoder_limits import DecoderLimits
from mtl_core.audio.decoding.decoder_process import DECODER, Decoder
from mtl_core.audio.front_end import FrontEnd, Segments, log_mel_segments
from mtl_core.audio.prefetch import PendingFetch, Prefetcher, Row
from mtl_core.audio.ranged_file import RangedFile
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.segments import rounds
from mtl_core.audio.source import Source, as_fetch_error, fetched_bytes
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
    is_whole: bool = True  # whether these are all segments that the front end names


@dataclass(frozen=True)
class FailedTrack:
    """A track that failed: its row of the manifest, and why."""

    row: Row
    error: TrackError

    def as_row(self, *, model_id: str | None, run_id: str, gives_up: bool = False) -> Row:
        """A row of `schema.FAILURES`.

        Args:
            model_id: None in an extraction, which counts no attempts of earlier runs.
            run_id: of this run.
            gives_up: whether the failure is permanent, even if such an error may pass.
        """
        first_run_id = None if model_id is None else self.row.get("first_run_id")
        return {
            "track_id": self.row["track_id"],
            "uri": self.row.get("uri"),
            "content_id": self.row.get("content_id"),
            "stage": self.error.stage,
            "error": self.error.error,
            "message": self.error.message,
            "attempts": 1 if model_id is None else self.row.get("attempts", 0) + 1,
            "permanent": self.error.permanent or gives_up,
            "model_id": model_id,
            "run_id": run_id,
            "failed_at": datetime.now(UTC),
            "first_run_id": first_run_id or run_id,
        }


class OpenTrack:
    """A track whose recording is open in the decoder. It can be read until the next track is opened.

    `row` is that of the manifest, `duration_s` the length of the recording.
    """

    def __init__(self, row: Row, reader: "TrackReader", rate_hz: int, n_frames: int, draws: Mapping[str, Any]) -> None:
        self.row, self.duration_s = row, n_frames / rate_hz
        self._reader, self._draws = reader, draws
        self._stretches = reader.front_end.stretches(n_frames, rate_hz, **draws)
        self._lost_s = self._asked_s = 0.0
        self._read: list[Stretches] = []  # so far

    @property
    def n_segments(self) -> int:
        """The number of segments that the front end names; 0 of the sampling `paper`, which names excerpts."""
        return 0 if self._stretches.are_excerpts else len(self._stretches.places)

    @property
    def lost_s(self) -> float:
        """Of what was decoded so far: damage that was passed over, in seconds."""
        return self._lost_s

    @property
    def is_lost(self) -> bool:
        """Whether damage has taken too much of what was decoded so far."""
        return self._lost_s > MOST_LOST * self._asked_s

    def read(self, segments: int | None = None) -> "Track":
        """All segments, or the first ones in the order of `segments.rounds`; the sampling `paper` has no such order.

        Raises TrackError of the stages fetch, decode and features.
        """
        stretches, is_whole = self._stretches, True
        if segments is not None and segments < self.n_segments:
            chosen = np.sort(np.concatenate(rounds(self.n_segments))[:segments])
            stretches, is_whole = self._at(chosen), False
        read = self._segments(stretches)
        self.check_lost()
        return Track(self.row, read, self.duration_s, self.lost_s, is_whole)

    def read_rounds(self) -> Iterator[tuple[np.ndarray, Segments]]:
        """The numbers of each round's segments, see `segments.rounds`, and the segments, decoded when asked for.

        The sampling `paper` has one round. Raises TrackError as `read`.
        """
        if self._stretches.are_excerpts:
            segments = self._segments(self._stretches)
            yield np.arange(len(segments.start_s)), segments
            return
        for numbers_R in rounds(self.n_segments):
            yield numbers_R, self._segments(self._at(numbers_R))

    def _at(self, numbers: np.ndarray) -> Stretches:
        return Stretches(places=[self._stretches.places[i] for i in numbers], are_excerpts=False)

    def check_lost(self) -> None:
        """Raises TrackError where damage has taken too much of what was decoded."""
        if self.is_lost:
            message = f"{self._lost_s:.1f} of {self._asked_s:.1f} s could not be decoded: allowed is {MOST_LOST:.0%}"
            raise TrackError("decode", "corrupt", message)

    def _segments(self, stretches: Stretches) -> Segments:
        with self._reader.decoding(self.row, stretches, self._read) as decoder:
            recording = decoder.read(stretches)
        self._read.append(stretches)
        self._lost_s += recording.lost_s
        self._asked_s += sum(len(excerpt.samples) for excerpt in recording.excerpts) / SAMPLE_RATE_HZ
        with self._reader.timer.timed("features"):
            return log_mel_segments(recording, self._reader.front_end, **self._draws)


def read_each(tracks: Iterable[OpenTrack | FailedTrack], segments: int | None = None) -> Iterator[Track | FailedTrack]:
    """All or so many segments of each track, see `OpenTrack.read`; one that fails becomes a `FailedTrack`."""
    for track in tracks:
        try:
            yield track if isinstance(track, FailedTrack) else track.read(segments)
        except TrackError as error:
            yield FailedTrack(track.row, error)


class TrackReader:
    """Reads tracks for one worker. It has a decoder child, fetching threads, and a `timer` of its stages.

    A row has `track_id`, and what `Prefetcher.submit` needs.

    Args:
        front_end: makes the segments.
        limits: what a track may be, and what reading it may cost.
        decoder: module of the decoder process, see `decoder_process.Decoder`.
        draws: random starts a segment slot; 0 is the fixed grid. See `front_end.log_mel_segments`.
        seed: of the random starts.
        reads_first: segments of a track that are read at first, see `segments.rounds`; None: all.
        growth_bytes: of the decoder, see `DecoderLimits`.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        limits: ReadLimits | None = None,
        *,
        decoder: str = DECODER,
        draws: int = 0,
        seed: int = 0,
        reads_first: int | None = None,
        growth_bytes: int = DecoderLimits.growth_bytes,
    ) -> None:
        self.front_end, self._draws, self._seed, self._reads_first = front_end, draws, seed, reads_first
        self._source: Source | None = None  # of the track that is open
        limits = limits or ReadLimits()
        self._decoder = Decoder(replace(limits.decoder_limits(), growth_bytes=growth_bytes), decoder)
        self._prefetcher = Prefetcher(allowed=limits.allowed(), plan=None if draws else self._planned)
        self._lock = threading.Lock()
        self._submitter, self._consumer = ThreadPoolExecutor(1, "submit"), ThreadPoolExecutor(1, "consume")
        self.timer = StageTimer(self._decoder.cpu_s)  # its "fetch" is the time spent waiting for a download

    def close(self) -> None:
        """End the decoder child. A closed reader cannot be used again."""
        self._decoder.close()

    def open(self, rows: list[Row]) -> Iterator[OpenTrack | FailedTrack]:
        """The tracks of `rows`, in their order. Fetching starts now; a track is open until the next one is taken."""
        return self._tracks(self._prefetcher.submit(rows))

    def read(self, rows: list[Row]) -> Iterator[Track | FailedTrack]:
        """The same with all their segments."""
        return read_each(self.open(rows))

    def serve_in_order(
        self, rows: Callable[[], list[Row]], use: Callable[[Iterator[OpenTrack | FailedTrack]], Result]
    ) -> Result:
        """Open the tracks of several callers, one caller after another; for callers in several threads.

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

    @contextmanager
    def decoding(self, row: Row, stretches: Stretches, read: Sequence[Stretches] = ()) -> Iterator[Decoder]:
        """The decoder, for stretches of the recording that is open, that of `row`, of which others were `read`."""
        with self._timed_decoding(row):
            if isinstance(self._source, RangedFile) and self._source.layout is not None:
                layout = self._source.layout
                if not layout.fetch(self._source, stretches.in_seconds(layout.rate_hz)):
                    self._open_whole(self._source, read)
            yield self._decoder

    def _open_whole(self, file: RangedFile, read: Sequence[Stretches]) -> None:
        """Open all of the file of which ranges were fetched.

        What was read is decoded again, because the first sound of a recording decides how it becomes mono.
        """
        assert file.whole is not None, "open_track has made it"
        self.timer.add_fetched(file.fetched_bytes)
        self._source = file.whole()
        self._decoder.open(self._source)
        for stretches in read:
            self._decoder.read(stretches)

    def _planned(self, n_frames: int, rate_hz: int) -> list[tuple[float, float]]:
        """As `source.Plan`."""
        stretches = self.front_end.stretches(n_frames, rate_hz)
        if self._reads_first is not None and not stretches.are_excerpts:
            first = np.concatenate(rounds(len(stretches.places)))[: self._reads_first]
            stretches = replace(stretches, places=[stretches.places[i] for i in first])
        return stretches.in_seconds(rate_hz)

    def _tracks(self, fetches: deque[PendingFetch]) -> Iterator[OpenTrack | FailedTrack]:
        try:
            while fetches:
                fetch = fetches.popleft()
                try:
                    track = self._open(fetch)
                except TrackError as error:
                    yield FailedTrack(fetch.row, error)
                else:
                    yield track
                    self._decoder.end_turn()
                self.timer.add_fetched(fetched_bytes(self._source))
        finally:  # also where the garbage collector finds an iterator that nobody has read to its end
            self._prefetcher.drop(fetches)

    def _open(self, fetch: PendingFetch) -> OpenTrack:
        row, self._source = fetch.row, None
        with self.timer.timed("fetch"):
            source = self._source = self._prefetcher.result(fetch)
        draws = {"draws": self._draws, "seed": self._seed, "track_id": row["track_id"]}
        with self._timed_decoding(row):
            rate_hz, n_frames = self._decoder.open(source)
            return OpenTrack(row, self, rate_hz, n_frames, draws)

    @contextmanager
    def _timed_decoding(self, row: Row) -> Iterator[None]:
        """Decoding reads local files and large objects, so it can fail as fetching does."""
        with self.timer.timed("decode"), as_fetch_error(row.get("uri") or row["track_id"]):
            yield
