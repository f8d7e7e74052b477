"""Restoring, compacting and cleaning do what they say, and readers are not disturbed."""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nights import a_failure, a_tag, manifest, night, nothing, state

from mtl_core.errors import InputError, RunError
from mtl_core.storage import lease, work_plan
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location
from mtl_core.tables import data_files, delta, maintenance, planning

WEEK_S = 7 * 24 * 3600


def nights(root: Location) -> dict[str, str]:
    """Two good nights. Returns the state after them."""
    night(root, "1", [a_tag(i, run="1") for i in "abc"], [a_failure(i) | {"run_id": "1"} for i in "fg"])
    night(root, "2", [a_tag("d", run="2")], [])
    return state(root)


def bad_night(root: Location, run: str = "bad", check_lease: Callable[[], None] = nothing) -> None:
    """A new model tags a track that had failed, and fails on one that was tagged."""
    tagged = [a_tag(i, "bad", run=run) for i in "bcdf"]
    night(root, run, tagged, [a_failure(i, "bad") | {"run_id": run} for i in "ag"], "bad", check_lease)


def later(by_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + by_s)


def versions(root: Location) -> list[int]:
    return [table.version() for table in delta.read_snapshot(root) if table is not None]


def test_the_state_before_a_bad_model_is_restored(root: str) -> None:
    out = Location(root)
    good = nights(out)
    bad_night(out)
    night(out, "after", [a_tag("e", "bad", run="after")], [])
    seen = []

    def look() -> None:
        tags, failures = (
            table.to_pyarrow_table()["track_id"].to_pylist() for table in delta.read_snapshot(out) if table
        )
        assert set("abcdfg") <= {*tags, *failures}
        assert len(set(failures)) == len(failures) and len(set(tags)) == len(tags)
        seen.append(len(tags))

    changes = maintenance.restore(out, "bad", look)
    assert state(out) == good
    assert len(seen) == 4 and len(changes["tags"].after) == 2
    settled = versions(out)
    maintenance.restore(out, "bad", nothing)
    assert versions(out) == settled, "nothing is left to do"
    assert planning.plan_tracks(manifest("abcd"), out, "m", retry_failed=False).n_rows == 0
    assert planning.plan_tracks(manifest("abcd"), out, "bad", retry_failed=False).n_rows == 4


def test_a_night_after_a_restore_is_committed_as_usual(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    nights(out)
    bad_night(out)
    maintenance.restore(out, "bad", nothing)
    bad_night(out, "better")
    assert state(out) == {i: "tag better" for i in "bcdf"} | {i: "failure better" for i in "ag"}
    maintenance.restore(out, "1", nothing)
    assert state(out) == {}


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_an_interrupted_restore_is_completed_by_the_same_call(tmp_path: Path, cut: int) -> None:
    out = Location(str(tmp_path))
    good = nights(out)
    bad_night(out)
    calls = []

    def dies() -> None:
        calls.append(1)
        if len(calls) == cut:
            raise LeaseLostError("killed")

    with pytest.raises(LeaseLostError):
        maintenance.restore(out, "bad", dies)
    maintenance.restore(out, "bad", nothing)
    assert state(out) == good


def test_a_run_that_changed_only_one_table_is_undone_in_both(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    good = nights(out)
    night(out, "tags-only", [a_tag("e", run="tags-only")], [])
    night(out, "later", [], [a_failure("h")])
    maintenance.restore(out, "tags-only", nothing)
    assert state(out) == good


def test_a_restore_deletes_unfinished_runs(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    good = nights(out)

    def dies() -> None:
        if len(delta.open_table(out, "failures").history()) > 2:  # type: ignore[union-attr]
            raise LeaseLostError("killed between the commits")

    folder = out / work_plan.RUNS_IN_PROGRESS / "bad"
    work_plan.write_plan(manifest("ab"), folder, run_id="bad", tracks_per_shard=1, parameters={})
    with pytest.raises(LeaseLostError):
        bad_night(out, check_lease=dies)
    maintenance.restore(out, "bad", nothing)
    assert state(out) == good
    assert work_plan.load_plan(folder) is None, "completing it would remove the restored failures"


def test_a_restore_that_is_impossible_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Location(str(tmp_path))
    with pytest.raises(InputError, match="no tables"):
        maintenance.restore(out, "bad", nothing)
    nights(out)
    with pytest.raises(InputError, match="contain no commit of run 'x'"):
        maintenance.restore(out, "x", nothing)
    bad_night(out)
    later(WEEK_S + 60, monkeypatch)
    maintenance.clean(out, keep_days=7, check_lease=nothing)
    before = state(out)
    with pytest.raises(InputError, match="have been cleaned"):
        maintenance.restore(out, "bad", nothing)
    assert state(out) == before


def test_compaction_merges_small_files_and_keeps_the_rows(root: str) -> None:
    out = Location(root)
    for i in "abcde":
        night(out, i, [a_tag(i, run=i)], [a_failure(f"{i}-bad") | {"run_id": i}])
    before, reader = state(out), delta.read_snapshot(out)
    changes = maintenance.compact(out, nothing)
    assert [(len(changes[name].before), len(changes[name].after)) for name in ("tags", "failures")] == [(5, 1), (5, 1)]
    assert state(out) == before
    assert reader.tags is not None and reader.tags.to_pyarrow_table().num_rows == 5, "readers are not disturbed"
    (part,) = data_files.active_files(delta.open_table(out, "tags"))  # type: ignore[arg-type]
    assert (part.n_rows, part.min_values["track_id"], part.max_values["track_id"]) == (5, "a", "e")
    settled = versions(out)
    maintenance.compact(out, nothing)
    night(out, "c", [a_tag("c", run="c")], [a_failure("c-bad") | {"run_id": "c"}])
    assert versions(out) == settled, "an earlier commit is not repeated"


def test_a_compaction_fails_if_a_run_commits_at_the_same_time(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    nights(out)

    def a_run_commits() -> None:
        night(out, "3", [a_tag("a", run="3")], [])

    with pytest.raises(RunError, match="another program"):
        maintenance.compact(out, a_run_commits)
    assert state(out)["a"] == "tag 3" and len(state(out)) == 6


def test_cleaning_deletes_only_files_that_no_reader_needs(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Location(root)
    nights(out)
    bad_night(out)
    before, last_night = state(out), delta.open_table(out, "tags", 2)
    stray = out / "tags" / "part-given-up-0123-00000.parquet"
    half, whole = (out / work_plan.RUNS_IN_PROGRESS / run for run in ("half", "whole"))
    stray.write_bytes(b"stray")
    (half / "plan-00000.parquet").write_bytes(b"half a plan")
    work_plan.write_plan(manifest("xyz"), whole, run_id="whole", tracks_per_shard=1, parameters={})

    counted = maintenance.clean(out, keep_days=1, check_lease=nothing, dry_run=True)
    assert stray.exists() and len(counted["tags"].before) - len(counted["tags"].after) == 1
    assert maintenance.clean(out, keep_days=1, check_lease=nothing) == counted
    assert not stray.exists() and not (half / "plan-00000.parquet").exists()
    assert work_plan.load_plan(whole) is not None
    assert last_night is not None and last_night.to_pyarrow_table().num_rows == 4, "a reader of last night's version"
    later(2 * 24 * 3600, monkeypatch)
    maintenance.clean(out, keep_days=1, check_lease=nothing)
    assert state(out) == before
    for name in delta.TABLE_SCHEMAS:
        table = delta.open_table(out, name)
        assert table is not None
        live = {part.path for part in data_files.active_files(table)}
        assert {path for path, _ in (out / name).walk() if not path.startswith("_delta_log")} == live


def test_cleaning_without_the_lease_deletes_nothing(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    nights(out)
    stray = out / "tags" / "part-x.parquet"
    stray.write_bytes(b"stray")

    def taken_over() -> None:
        raise LeaseLostError("another run has taken over")

    with pytest.raises(LeaseLostError):
        maintenance.clean(out, keep_days=1, check_lease=taken_over)
    assert stray.exists()


def test_a_checkpoint_of_the_log_keeps_the_runs(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    good = nights(out)
    for name in delta.TABLE_SCHEMAS:
        delta.open_table(out, name).create_checkpoint()  # type: ignore[union-attr]
    maintenance.compact(out, nothing)
    settled = versions(out)
    night(out, "2", [a_tag("d", run="2")], [])
    assert versions(out) == settled and state(out) == good


def run(*flags: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["jobs/maintain_tables.py", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "maintain_tables.py"), run_name="__main__")
    return int(ended.value.code or 0)


def test_the_job_refuses_beside_a_run_and_prints_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Location(str(tmp_path))
    good = nights(out)
    bad_night(out)
    with lease.acquire(out):
        monkeypatch.setattr(lease, "DEAD_AFTER_S", 6.0)
        assert run("--out", out, "--compact", monkeypatch=monkeypatch) == 4
    assert "another run is at work" in capsys.readouterr().err
    assert run("--out", out, "--restore-before", "x", monkeypatch=monkeypatch) == 2
    assert "contain no commit of run 'x'" in capsys.readouterr().err
    assert run("--out", out, "--restore-before", "bad", monkeypatch=monkeypatch) == 0
    assert state(out) == good
    assert run("--out", out, "--compact", "--clean", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "tags restored before bad: 1 files of" in printed and "tags compacted: 2 files of" in printed
    assert state(out) == good
