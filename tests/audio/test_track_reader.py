"""Tracks are read as version 0.1 read them, from a uri or from bytes, for callers in several threads."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from builders.sound_files import by_ffmpeg, encoded, song, with_hole

from mtl_core.audio import track_reader
from mtl_core.audio.decoding.decoder_child import serve
from mtl_core.audio.decoding.ffmpeg_stream import SoundLimits
from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.prefetch import Prefetcher
from mtl_core.audio.read_limits import ReadLimits
from mtl_core.audio.segments import rounds
from mtl_core.audio.track_reader import FailedTrack, OpenTrack, Track, TrackReader, read_each
from mtl_core.errors import TrackError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> TrackReader:
    """It fetches a single track ahead: a caller that needs two at once would wait for ever."""
    monkeypatch.setattr(track_reader, "Prefetcher", partial(Prefetcher, max_tracks=1, max_bytes=1))
    return TrackReader(FrontEnd(segments_per_excerpt=1))


def rows(folder: Path, name: str, n: int) -> list[dict]:
    for number in range(n):
        soundfile.write(folder / f"{name}{number}.wav", 0.1 * np.ones(8000) * (-1) ** np.arange(8000), 16_000)
    return [{"track_id": f"{name}{number}", "uri": str(folder / f"{name}{number}.wav")} for number in range(n)]


def ids(tracks: Iterator[OpenTrack | FailedTrack]) -> list[str]:
    return [track.row["track_id"] for track in read_each(tracks) if isinstance(track, Track)]


def test_callers_are_served_in_the_order_of_their_calls(reader: TrackReader, tmp_path: Path) -> None:
    """The rows of the second caller are read while the first is served; neither waits for the other's tracks."""
    first_rows, second_rows = rows(tmp_path, "a", 3), rows(tmp_path, "b", 3)
    second_called, order = threading.Event(), []

    def use_slowly(tracks: Iterator[OpenTrack | FailedTrack]) -> list[str]:
        assert second_called.wait(20), "the rows of the second caller were not read meanwhile"
        order.append("first")
        return ids(tracks)

    def read_second_rows() -> list[dict]:
        second_called.set()
        return second_rows

    def use_second(tracks: Iterator[OpenTrack | FailedTrack]) -> list[str]:
        order.append("second")
        return ids(tracks)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reader.serve_in_order, lambda: first_rows, use_slowly)
        second = pool.submit(reader.serve_in_order, read_second_rows, use_second)
        assert first.result(60) == ["a0", "a1", "a2"] and second.result(60) == ["b0", "b1", "b2"]
    assert order == ["first", "second"]


def test_a_caller_that_fails_does_not_block_the_next(reader: TrackReader, tmp_path: Path) -> None:
    def fail(tracks: Iterator[OpenTrack | FailedTrack]) -> None:
        next(tracks)
        raise RuntimeError("the engine is broken")

    def fail_at_once(_: Iterator[OpenTrack | FailedTrack]) -> None:
        raise RuntimeError("the engine does not start")

    def fail_to_read() -> list[dict]:
        raise OSError("the plan cannot be read")

    three_rows = rows(tmp_path, "a", 3)
    for use in (fail, fail_at_once):
        with pytest.raises(RuntimeError, match="engine"):
            reader.serve_in_order(lambda: three_rows, use)
    with pytest.raises(OSError, match="plan"):
        reader.serve_in_order(fail_to_read, ids)
    assert reader.serve_in_order(lambda: three_rows, ids) == ["a0", "a1", "a2"]


def test_an_abandoned_iterator_waits_for_no_lock(reader: TrackReader, tmp_path: Path) -> None:
    """The garbage collector closes it anywhere, for example inside a call that holds a lock of the thread pools."""
    abandoned = reader.open(rows(tmp_path, "a", 5))
    next(abandoned)
    with reader._prefetcher._lock:
        abandoned.close()
    assert ids(reader.open(rows(tmp_path, "b", 3))) == ["b0", "b1", "b2"]


def test_each_delta_of_the_timer_has_the_cost_since_the_last(reader: TrackReader, tmp_path: Path) -> None:
    deltas = [reader.timer.delta()]
    for name in "abc":
        reader.serve_in_order(lambda name=name: rows(tmp_path, name, 2), ids)
        deltas.append(reader.timer.delta())
    assert deltas[0].seconds == {}
    assert all(delta.seconds["decode"] > 0 and delta.cpu_s >= 0 for delta in deltas[1:])
    assert reader.timer.delta().seconds["decode"] == 0


def test_mels_are_those_of_version_0_1() -> None:
    """Version 0.1 decoded by libsndfile, whose samples differ by up to 5e-6; mels are stored in float16."""
    mels = pa.concat_tables(pq.read_table(path) for path in sorted((FIXTURES / "mels").glob("*.parquet")))
    paths = sorted((FIXTURES / "catalogue" / "audio").rglob("*.*"))
    assert {path.suffix for path in paths} == {".mp3", ".ogg"}
    track_ids = [str(path.relative_to(FIXTURES / "catalogue" / "audio")) for path in paths]
    reader = TrackReader(FrontEnd())
    from_uri = reader.read([{"track_id": i, "uri": str(path)} for i, path in zip(track_ids, paths, strict=True)])
    from_bytes = reader.read(
        [{"track_id": i, "bytes": path.read_bytes()} for i, path in zip(track_ids, paths, strict=True)]
    )
    for track, same in zip(from_uri, from_bytes, strict=True):
        assert isinstance(track, Track) and isinstance(same, Track)
        rows_of_track = [name.endswith(track.row["track_id"]) for name in mels["track_id"].to_pylist()]
        expected = mels.filter(pa.array(rows_of_track)).sort_by("segment")
        assert len(expected) > 0
        for read in (track, same):
            mel_STF = read.segments.mel_STF.astype(np.float16)
            expected_STF = expected["mel"].combine_chunks().to_numpy_ndarray()
            assert (mel_STF != expected_STF).mean() < 0.01
            np.testing.assert_allclose(mel_STF, expected_STF, rtol=1e-3, atol=1e-4)
            assert read.segments.start_s.tolist() == expected["start_s"].to_pylist()


def test_bad_bytes_and_an_empty_row_fail_as_data(reader: TrackReader) -> None:
    failed = list(reader.read([{"track_id": "a", "bytes": b"words"}, {"track_id": "b"}]))
    rows = [track.as_row(model_id=None, run_id="r") for track in failed if isinstance(track, FailedTrack)]
    assert [(row["track_id"], row["uri"], row["stage"], row["error"]) for row in rows] == [
        ("a", None, "decode", "not_audio"),
        ("b", None, "fetch", "not_found"),
    ]


def test_a_track_of_which_more_than_half_is_lost_is_corrupt(tmp_path: Path) -> None:
    reader = TrackReader(FrontEnd(sampling="spread", segments=8))
    data = by_ffmpeg(song(20), "matroska", "flac")
    third, most = (with_hole(data, 0.2, int(share * len(data))) for share in (0.3, 0.7))
    good, damaged, lost = reader.read([{"track_id": "a", "bytes": content} for content in (data, third, most)])
    assert isinstance(good, Track) and good.lost_s == 0
    assert isinstance(damaged, Track) and 1 < damaged.lost_s < 10
    assert isinstance(lost, FailedTrack) and (lost.error.stage, lost.error.error) == ("decode", "corrupt")


def test_a_track_outside_the_allowed_places_is_forbidden(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inside, outside = rows(tmp_path / "in", "a", 1)[0], rows(tmp_path, "b", 1)[0]
    link = tmp_path / "in" / "link.wav"
    link.symlink_to(outside["uri"])
    reader = TrackReader(FrontEnd(), ReadLimits(allow_uri_prefix=(str(tmp_path / "in"),)))
    uris = [inside["uri"], outside["uri"], str(link), str(tmp_path / "in" / ".." / "b0.wav"), "s3://bucket/b0.wav"]
    good, *refused = reader.read([{"track_id": uri, "uri": uri} for uri in uris])
    assert isinstance(good, Track)
    assert [track.error.error for track in refused if isinstance(track, FailedTrack)] == ["forbidden"] * 4
    with pytest.raises(ValueError, match="one or more"):
        ReadLimits(allow_uri_prefix=())


def test_a_deployment_may_bring_its_own_decoder() -> None:
    """This module runs as the decoder child: it finds a click of 3 s in any bytes."""
    reader = TrackReader(FrontEnd(), decoder=__name__)
    (track,) = reader.read([{"track_id": "a", "bytes": b"words"}])
    assert isinstance(track, Track) and track.duration_s == 3.0 and track.segments.mel_STF.shape == (1, 187, 96)


def test_segments_that_are_read_in_rounds_are_those_that_are_read_at_once() -> None:
    data = encoded(song(40), "FLAC", "PCM_16")
    reader = TrackReader(FrontEnd(sampling="spread", segments=32))
    (whole,), (some,) = (
        list(read_each(reader.open([{"track_id": "a", "bytes": data}]), segments)) for segments in (None, 6)
    )
    assert isinstance(whole, Track) and isinstance(some, Track)
    (open_track,) = (track for track in reader.open([{"track_id": "a", "bytes": data}]))
    assert isinstance(open_track, OpenTrack)
    assert open_track.n_segments == len(whole.segments.start_s) == 13 and whole.is_whole
    rounds = list(open_track.read_rounds())
    assert [len(numbers) for numbers, _ in rounds] == [4, 4, 5]
    for numbers, segments in rounds:
        np.testing.assert_allclose(segments.mel_STF, whole.segments.mel_STF[numbers], rtol=0, atol=1e-5)
        assert segments.start_s.tolist() == whole.segments.start_s[numbers].tolist()
    assert (len(some.segments.start_s), some.is_whole) == (6, False)
    assert set(rounds[0][1].start_s) < set(some.segments.start_s) < {*rounds[0][1].start_s, *rounds[1][1].start_s}


def test_a_decoder_that_dies_between_two_rounds_costs_its_track_alone() -> None:
    reader = TrackReader(FrontEnd(sampling="spread", segments=32), decoder=__name__)
    tracks = reader.open([{"track_id": name, "bytes": name.encode()} for name in ("dies", "lives")])
    dying = next(tracks)
    assert isinstance(dying, OpenTrack) and dying.n_segments == 20
    rounds = dying.read_rounds()
    assert len(next(rounds)[0]) == 4
    with pytest.raises(TrackError, match="exited with 3") as error:
        next(rounds)
    assert (error.value.stage, error.value.error) == ("decode", "crashed")
    living = next(tracks)
    assert isinstance(living, OpenTrack) and len(living.read().segments.start_s) == 1


class Click:
    rate_hz, n_frames = 16_000, 48_000

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        samples = np.zeros(48_000, np.float32)
        samples[24_000] = 1
        return samples[start : start + length], 0

    def close(self) -> None:
        pass


class DyingSound(Click):
    """A minute of silence; the process dies when a segment of the second round is read."""

    n_frames = 60 * 16_000

    def read(self, start: int, length: int) -> tuple[np.ndarray, int]:
        if round(start / 48_000) not in rounds(20)[0]:
            os._exit(3)
        return np.zeros(length, np.float32), 0


def open_click(file: BinaryIO, limits: SoundLimits) -> Click:
    return DyingSound() if file.read() == b"dies" else Click()


if __name__ == "__main__":
    serve(open_click)
