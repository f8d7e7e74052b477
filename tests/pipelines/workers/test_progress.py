"""Progress lines: counts, rate and time left, on a terminal and in a log."""

from contextlib import closing
from types import SimpleNamespace

import pytest

from mtl_core.pipelines.workers import progress
from mtl_core.pipelines.workers.progress import LOG_EVERY_S, TERMINAL_EVERY_S, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `progress` reads; a test adds to clock[0]."""
    clock = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def test_a_log_gets_a_line_every_15_s_and_one_at_the_end(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    counter = Progress("tagging", 1_000)
    for _ in range(9):
        clock[0] += LOG_EVERY_S / 3
        counter.add(100, failed=1)
    clock[0] += 0.1
    counter.add(100, failed=0)
    lines = capsys.readouterr().err.split("\n")
    assert lines == [
        "tagging: 300 of 1,000 tracks (30%), 3 failed, 20.0 tracks/s, 0:00:35 left",
        "tagging: 600 of 1,000 tracks (60%), 6 failed, 20.0 tracks/s, 0:00:20 left",
        "tagging: 900 of 1,000 tracks (90%), 9 failed, 20.0 tracks/s, 0:00:05 left",
        "tagging: 1,000 of 1,000 tracks (100%), 9 failed, 22.2 tracks/s, 0:00:00 left",
        "",
    ]


def test_tracks_of_an_earlier_try_do_not_count_into_the_rate(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    counter = Progress("extracting mels", 1_000, done=800)
    assert "800 of 1,000 tracks are done\n" in capsys.readouterr().err
    clock[0] += LOG_EVERY_S
    counter.add(30, failed=0)
    assert "830 of 1,000 tracks (83%), 0 failed, 2.0 tracks/s, 0:01:25 left" in capsys.readouterr().err


def test_a_terminal_gets_one_line_that_is_written_over(
    clock: list[float], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    counter = Progress("tagging", 2)
    for _ in range(2):
        clock[0] += TERMINAL_EVERY_S
        counter.add(1, failed=0)
    first, last = capsys.readouterr().err.split("\r")
    assert first.startswith("tagging: 1 of 2") and len(first) >= 100, "blanks cover a longer line"
    assert last.startswith("tagging: 2 of 2") and last.endswith("\n")


def test_before_the_first_track_the_time_left_is_unknown(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    counter = Progress("tagging", 10)
    clock[0] += LOG_EVERY_S
    counter.add(0, failed=0)
    assert capsys.readouterr().err == "tagging: 0 of 10 tracks (0%), 0 failed, 0.0 tracks/s, ? left\n"


def test_counts_that_are_not_taken_to_their_end_are_closed() -> None:
    """Ray Data's threads end with them."""
    ended = []

    def counts():
        try:
            while True:
                yield {"done": 1, "failed": 0}
        finally:
            ended.append(True)

    with closing(Progress("tagging", 10).watch(counts())) as watched:
        next(watched)
        assert not ended
    assert ended
