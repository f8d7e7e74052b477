"""Truths about upkeep: what is restored, compacted or cleaned is what it says, and nobody is disturbed by it."""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_delta import a_failure, a_tag, manifest, night, state

from mtl_core.errors import InputError, RunError
from mtl_core.storage import lease, work_plan
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location
from mtl_core.tables import data_files, delta, maintenance

WEEK_S = 7 * 24 * 3600


def nothing() -> None:
    """The lease is ours."""


def nights(root: Location) -> dict[str, str]:
    """Two good nights; what is known after them."""
    night(root, "1", [a_tag(i, run="1") for i in "abc"], [a_failure(i) | {"run_id": "1"} for i in "fg"])
    night(root, "2", [a_tag("d", run="2")], [])
    return state(root)


def bad_night(root: Location, run: str = "bad", check_lease: Callable[[], None] = nothing) -> None:
    """A new model retags: a failed track is tagged, a tagged one fails."""
    tagged = [a_tag(i, "bad", run=run) for i in "bcdf"]
    night(root, run, tagged, [a_failure(i, "bad") | {"run_id": run} for i in "ag"], "bad", check_lease)


def later(by_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + by_s)


def versions(root: Location) -> list[int]:
    return [table.version() for table in delta.read_snapshot(root) if table is not None]


def test_the_state_before_a_bad_model_comes_back(root: str) -> None:
    at = Location(root)
    good = nights(at)
    bad_night(at)
    night(at, "after", [a_tag("e", "bad", run="after")], [])
    seen = []

    def look() -> None:
        tags, failures = (
            table.to_pyarrow_table()["track_id"].to_pylist() for table in delta.read_snapshot(at) if table
        )
        assert set("abcdfg") <= {*tags, *failures}
        assert len(set(failures)) == len(failures) and len(set(tags)) == len(tags)
        seen.append(len(tags))

    changes = maintenance.restore(at, "bad", look)
    assert state(at) == good
    assert len(seen) == 4 and changes["tags"].files_after == 2
    settled = versions(at)
    maintenance.restore(at, "bad", nothing)
    assert versions(at) == settled, "there is nothing left to do"
    assert delta.plan_tracks(manifest("abcd"), at, "m", retry_failed=False).num_rows == 0
    assert delta.plan_tracks(manifest("abcd"), at, "bad", retry_failed=False).num_rows == 4


def test_a_night_after_a_restore_is_a_night_like_any_other(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    nights(at)
    bad_night(at)
    maintenance.restore(at, "bad", nothing)
    bad_night(at, "better")
    assert state(at) == {i: "tag better" for i in "bcdf"} | {i: "failure better" for i in "ag"}
    maintenance.restore(at, "1", nothing)
    assert state(at) == {}


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_restore_that_was_cut_short_is_completed_by_the_same_call(tmp_path: Path, cut: int) -> None:
    at = Location(str(tmp_path))
    good = nights(at)
    bad_night(at)
    calls = []

    def dies() -> None:
        calls.append(1)
        if len(calls) == cut:
            raise LeaseLostError("killed")

    with pytest.raises(LeaseLostError):
        maintenance.restore(at, "bad", dies)
    maintenance.restore(at, "bad", nothing)
    assert state(at) == good


def test_a_run_that_changed_one_table_alone_is_undone_with_the_other(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    good = nights(at)
    night(at, "tags-only", [a_tag("e", run="tags-only")], [])
    night(at, "later", [], [a_failure("h")])
    maintenance.restore(at, "tags-only", nothing)
    assert state(at) == good


def test_an_unfinished_run_is_given_up_by_a_restore(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    good = nights(at)

    def dies() -> None:
        if len(delta.open_table(at, "failures").history()) > 2:  # type: ignore[union-attr]
            raise LeaseLostError("killed between the commits")

    folder = at / maintenance.RUNS_IN_PROGRESS / "bad"
    work_plan.write_plan(manifest("ab"), folder, run_id="bad", tracks_per_shard=1, parameters={})
    with pytest.raises(LeaseLostError):
        bad_night(at, check_lease=dies)
    maintenance.restore(at, "bad", nothing)
    assert state(at) == good
    assert work_plan.load_plan(folder) is None, "completing it would hide the failures that are undone"


def test_where_there_is_no_way_back_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Location(str(tmp_path))
    with pytest.raises(InputError, match="no tables"):
        maintenance.restore(at, "bad", nothing)
    nights(at)
    with pytest.raises(InputError, match="no commit of run 'x'"):
        maintenance.restore(at, "x", nothing)
    bad_night(at)
    later(WEEK_S + 60, monkeypatch)
    maintenance.clean(at, keep_days=7, check_lease=nothing)
    before = state(at)
    with pytest.raises(InputError, match="were cleaned away"):
        maintenance.restore(at, "bad", nothing)
    assert state(at) == before


def test_small_files_become_one_and_say_the_same(root: str) -> None:
    at = Location(root)
    for i in "abcde":
        night(at, i, [a_tag(i, run=i)], [a_failure(f"{i}-bad") | {"run_id": i}])
    before, reader = state(at), delta.read_snapshot(at)
    changes = maintenance.compact(at, nothing)
    assert [(changes[name].files, changes[name].files_after) for name in ("tags", "failures")] == [(5, 1), (5, 1)]
    assert state(at) == before
    assert reader.tags is not None and reader.tags.to_pyarrow_table().num_rows == 5, "who reads is not disturbed"
    (part,) = data_files.active_files(delta.open_table(at, "tags"))  # type: ignore[arg-type]
    assert (part.n_rows, part.min_values["track_id"], part.max_values["track_id"]) == (5, "a", "e")
    settled = versions(at)
    maintenance.compact(at, nothing)
    night(at, "c", [a_tag("c", run="c")], [a_failure("c-bad") | {"run_id": "c"}])
    assert versions(at) == settled, "what was committed before is not committed again"


def test_nothing_slips_past_a_compaction(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    nights(at)

    def pause_here_while_a_run_commits() -> None:
        night(at, "3", [a_tag("a", run="3")], [])

    with pytest.raises(RunError, match="someone else"):
        maintenance.compact(at, pause_here_while_a_run_commits)
    assert state(at)["a"] == "tag 3" and len(state(at)) == 6


def test_what_is_cleaned_is_what_nobody_needs(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Location(root)
    nights(at)
    bad_night(at)
    before, last_night = state(at), delta.open_table(at, "tags", 2)
    stray = at / "tags" / "part-given-up-0123-00000.parquet"
    half, whole = (at / maintenance.RUNS_IN_PROGRESS / run for run in ("half", "whole"))
    stray.write_bytes(b"stray")
    (half / "plan-00000.parquet").write_bytes(b"half a plan")
    work_plan.write_plan(manifest("xyz"), whole, run_id="whole", tracks_per_shard=1, parameters={})

    counted = maintenance.clean(at, keep_days=1, check_lease=nothing, dry_run=True)
    assert stray.exists() and counted["tags"].files - counted["tags"].files_after == 1
    assert maintenance.clean(at, keep_days=1, check_lease=nothing) == counted
    assert not stray.exists() and not (half / "plan-00000.parquet").exists()
    assert work_plan.load_plan(whole) is not None
    assert last_night is not None and last_night.to_pyarrow_table().num_rows == 4, "a reader of last night's state"
    later(2 * 24 * 3600, monkeypatch)
    maintenance.clean(at, keep_days=1, check_lease=nothing)
    assert state(at) == before
    for name in delta.TABLE_SCHEMAS:
        table = delta.open_table(at, name)
        assert table is not None
        live = {part.path for part in data_files.active_files(table)}
        assert {path for path, _ in (at / name).walk() if not path.startswith("_delta_log")} == live


def test_a_clean_that_lost_its_lease_deletes_nothing(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    nights(at)
    stray = at / "tags" / "part-x.parquet"
    stray.write_bytes(b"stray")

    def taken_over() -> None:
        raise LeaseLostError("another run has taken over")

    with pytest.raises(LeaseLostError):
        maintenance.clean(at, keep_days=1, check_lease=taken_over)
    assert stray.exists()


def test_a_checkpoint_of_the_log_forgets_no_run(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    good = nights(at)
    for name in delta.TABLE_SCHEMAS:
        delta.open_table(at, name).create_checkpoint()  # type: ignore[union-attr]
    maintenance.compact(at, nothing)
    settled = versions(at)
    night(at, "2", [a_tag("d", run="2")], [])
    assert versions(at) == settled and state(at) == good


def run(*flags: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["jobs/maintain_tables.py", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "maintain_tables.py"), run_name="__main__")
    return int(ended.value.code or 0)


def test_the_job_waits_for_nobody_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = Location(str(tmp_path))
    good = nights(at)
    bad_night(at)
    with lease.acquire(at):
        monkeypatch.setattr(lease, "DEAD_AFTER_S", 6.0)
        assert run("--out", at, "--compact", monkeypatch=monkeypatch) == 2
    assert "another run is at work" in capsys.readouterr().err
    assert run("--out", at, "--restore-before", "x", monkeypatch=monkeypatch) == 2
    assert "no commit of run 'x'" in capsys.readouterr().err
    assert run("--out", at, "--restore-before", "bad", monkeypatch=monkeypatch) == 0
    assert state(at) == good
    assert run("--out", at, "--compact", "--clean", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "tags restored before bad: 1 files of" in printed and "tags compacted: 2 files of" in printed
    assert state(at) == good
