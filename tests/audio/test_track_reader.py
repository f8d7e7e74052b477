"""Truths about reading tracks for callers in several threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mtl_core.audio import prefetch
from mtl_core.audio.decoder_process import DecoderLimits
from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.track_reader import FailedTrack, Track, TrackReader


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> TrackReader:
    """One that holds a single track ahead: whoever waits for more is stuck."""
    monkeypatch.setattr(prefetch.Prefetcher.__init__, "__defaults__", (1, 1))
    return TrackReader(FrontEnd(segments_per_excerpt=1), DecoderLimits())


def rows(folder: Path, name: str, n: int) -> list[dict]:
    for number in range(n):
        soundfile.write(folder / f"{name}{number}.wav", 0.1 * np.ones(8000) * (-1) ** np.arange(8000), 16_000)
    return [{"track_id": f"{name}{number}", "uri": str(folder / f"{name}{number}.wav")} for number in range(n)]


def ids(tracks: Iterator[Track | FailedTrack]) -> list[str]:
    return [track.row["track_id"] for track in tracks if isinstance(track, Track)]


def test_callers_take_turns_in_the_order_they_came(reader: TrackReader, tmp_path: Path) -> None:
    """The rows of the second are asked for while the first is served, and neither waits for the other's tracks."""
    first, second = rows(tmp_path, "a", 3), rows(tmp_path, "b", 3)
    asked, order = threading.Event(), []

    def slowly(tracks: Iterator[Track | FailedTrack]) -> list[str]:
        assert asked.wait(20), "nobody asked for the next rows meanwhile"
        order.append("first")
        return ids(tracks)

    def at_last() -> list[dict]:
        asked.set()
        return second

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(reader.serve_in_order, lambda: first, slowly)
        other = pool.submit(reader.serve_in_order, at_last, lambda tracks: order.append("second") or ids(tracks))
        assert one.result(60) == ["a0", "a1", "a2"] and other.result(60) == ["b0", "b1", "b2"]
    assert order == ["first", "second"]


def test_who_fails_does_not_hold_up_the_next(reader: TrackReader, tmp_path: Path) -> None:
    def break_down(tracks: Iterator[Track | FailedTrack]) -> None:
        next(tracks)
        raise RuntimeError("the engine is broken")

    def no_rows() -> list[dict]:
        raise OSError("the plan cannot be read")

    some = rows(tmp_path, "a", 3)
    with pytest.raises(RuntimeError, match="engine"):
        reader.serve_in_order(lambda: some, break_down)
    with pytest.raises(OSError, match="plan"):
        reader.serve_in_order(no_rows, ids)
    assert reader.serve_in_order(lambda: some, ids) == ["a0", "a1", "a2"]


def test_laps_add_up_to_the_whole(reader: TrackReader, tmp_path: Path) -> None:
    laps = [reader.timer.delta()]
    for name in "abc":
        reader.serve_in_order(lambda name=name: rows(tmp_path, name, 2), ids)
        laps.append(reader.timer.delta())
    assert laps[0].seconds == {} and all(lap.seconds["decode"] > 0 and lap.cpu_s >= 0 for lap in laps[1:])
    assert reader.timer.delta().seconds["decode"] == 0
