"""The status of a night is read from its files: who is at work, how far it is, how fast, and what failed."""

import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from tables.nights import a_failure

from mtl_core import __main__
from mtl_core.errors import InputError
from mtl_core.pipelines.night.run_status import describe, read_status
from mtl_core.storage import lease, work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import RUNS_IN_PROGRESS, ShardResult
from mtl_core.timing import ZERO


def half_a_run(out: Location) -> None:
    """A run of 100 tracks in shards of 10, of which 4 are complete; 3 tracks of each failed."""
    plan = work_plan.write_plan(
        pa.table({"track_id": [f"{i:03}" for i in range(100)]}),
        out / RUNS_IN_PROGRESS / "run-1",
        run_id="run-1",
        tracks_per_shard=10,
        parameters={"model_id": "m", "source": "audio"},
    )
    for shard in (0, 1, 2, 5):
        result = ShardResult(shard=shard, output="f", done=7, failed=3, n_segments=0, audio_s=0.0, spent=ZERO)
        failures = [a_failure(f"{shard * 10 + i:03}") for i in range(3)]
        failures[0]["error"] = "too_short"
        work_plan.complete_shard(plan, result, failures)


def test_a_folder_without_runs_is_refused(root: str) -> None:
    with pytest.raises(InputError, match="no run of tag_catalogue was ever here"):
        read_status(Location(root))


def test_an_open_run_says_how_far_it_is_and_what_failed(root: str) -> None:
    out = Location(root)
    half_a_run(out)
    (out / "runs" / "run-0.json").write_json({"run_id": "run-0", "planned": 5, "tagged": 4, "failed": 1})
    with lease.acquire(out):
        status = read_status(out)
    assert status.holder is not None and not status.holder.has_ended
    (run,) = status.open_runs
    assert (run.run_id, run.source, run.model_id, run.planned, run.done, run.counted) == (
        "run-1", "audio", "m", 100, 40, 40,
    )  # fmt: skip
    assert run.failures == {"decode/corrupt": 8, "decode/too_short": 4}
    assert [record["run_id"] for record in status.last_runs] == ["run-0"]
    text = describe(status, out)
    assert "run run-1 from audio: 40 of 100 tracks (40%)" in text
    assert "failures among 40 of these: decode/corrupt 8, decode/too_short 4" in text
    assert "ended ?: run run-0, 5 planned, 4 tagged, 1 failed" in text
    assert read_status(out).holder is None


def set_times(tmp_path: Path, ages_s: dict[int, float]) -> None:
    for shard, age_s in ages_s.items():
        at_s = time.time() - age_s
        os.utime(tmp_path / RUNS_IN_PROGRESS / "run-1" / f"done-{shard:06}.parquet", (at_s, at_s))


def test_the_rate_is_that_of_the_last_ten_minutes(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    half_a_run(out)
    set_times(tmp_path, {0: 5_000, 1: 300, 2: 200, 5: 100})
    (run,) = read_status(out).open_runs
    assert run.tracks_per_s == pytest.approx(20 / 200, rel=0.01)  # the first shard is where the time begins
    assert run.left_s == pytest.approx(60 / 0.1, rel=0.01)
    text = describe(read_status(out), out)
    assert "0.1 tracks/s, 0:10 h left" in text and "the last shard was complete 0:02 h ago" in text


def test_a_run_that_stands_still_has_no_rate_and_its_holder_is_called_out(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    half_a_run(out)
    set_times(tmp_path, dict.fromkeys((0, 1, 2, 5), 90_000.0))
    with lease.acquire(out) as lock:
        lock._stop.set()  # as if its machine was gone
        lock._thread.join()
        os.utime(tmp_path / lease.LEASE_FILE, (time.time() - 3_600,) * 2)
        status = read_status(out)
    assert status.open_runs[0].tracks_per_s is None and status.open_runs[0].left_s is None
    text = describe(status, out)
    assert "a command was at work and has ended or stands still" in text and "3,600 s since it renewed" in text
    assert "the last shard was complete 25:00 h ago" in text


def test_a_run_that_ends_meanwhile_is_passed_over_and_an_extraction_has_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Location(str(tmp_path))
    half_a_run(out)
    (out / "runs" / "run-0.json").write_json({"run_id": "run-0"})

    def ends(plan: work_plan.WorkPlan, shards: object) -> None:
        raise FileNotFoundError

    with monkeypatch.context() as patched:
        patched.setattr(work_plan, "read_results", ends)
        assert read_status(out).open_runs == []
    plan = json.loads((out / RUNS_IN_PROGRESS / "run-1" / "plan.json").read_bytes())
    (out / RUNS_IN_PROGRESS / "run-1" / "plan.json").write_json(plan | {"parameters": {}})
    assert read_status(out).open_runs[0].model_id is None


def test_the_command_prints_words_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half_a_run(Location(str(tmp_path)))
    for flags, check in (([], lambda text: text.startswith(f"{tmp_path}: no command is at work\n")),
                         (["--json"], lambda text: json.loads(text)["open_runs"][0]["done"] == 40)):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["mtl-core", "status", "--out", str(tmp_path), *flags])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        assert not ended.value.code and check(capsys.readouterr().out)
