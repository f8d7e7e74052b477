"""Truths about shards: a plan is whole or is none, every track is in one shard, a mark ends a shard."""

import pyarrow as pa
import pytest

from mtl_core.schema import FAILURES
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import ShardResult
from mtl_core.timing import StageTimes


def tracks(n: int) -> pa.Table:
    return pa.table({"track_id": [f"t{i:05}" for i in range(n)], "uri": ["/x"] * n})


def a_mark(shard: int, done: int, failed: int) -> ShardResult:
    spent = StageTimes(seconds={"decode": 1.5, "model": 0.25}, cpu_s=2.0)
    return ShardResult(shard=shard, output="f", done=done, failed=failed, n_segments=3, audio_s=1800.0, spent=spent)


@pytest.mark.parametrize(("n", "per_shard"), [(1, 1), (7, 3), (2048, 32), (2049, 32), (300, 2)])
def test_every_track_is_in_one_shard(root: str, n: int, per_shard: int) -> None:
    folder = Location(root)
    plan = work_plan.write_plan(tracks(n), folder, run_id="r", tracks_per_shard=per_shard, parameters={"model_id": "m"})
    assert work_plan.load_plan(folder) == plan
    assert plan.n_shards == -(-n // per_shard)
    last = plan.n_shards - 1
    some = [row["track_id"] for shard in sorted({0, last // 2, last}) for row in work_plan.read_shard(plan, shard)]
    assert len(some) == len(set(some)) and some[-1] == f"t{n - 1:05}"
    assert len(work_plan.read_shard(plan, 0)) == min(n, per_shard)
    assert work_plan.read_columns(plan, ["track_id"])["track_id"].to_pylist() == tracks(n)["track_id"].to_pylist()


def test_a_plan_that_was_not_finished_is_none(root: str) -> None:
    folder = Location(root)
    assert work_plan.load_plan(folder) is None
    work_plan.write_plan(tracks(3), folder, run_id="r", tracks_per_shard=1, parameters={})
    (folder / "plan.json").delete()
    assert work_plan.load_plan(folder) is None


def test_marks_hold_counts_and_failures(root: str) -> None:
    plan = work_plan.write_plan(tracks(5), Location(root), run_id="r", tracks_per_shard=2, parameters={})
    assert work_plan.completed_shards(plan) == set()
    failure = dict.fromkeys(FAILURES.names) | {"track_id": "t00003", "permanent": True, "attempts": 1}
    work_plan.complete_shard(plan, a_mark(1, done=1, failed=1), [failure])
    work_plan.complete_shard(plan, a_mark(0, done=2, failed=0), [])
    assert work_plan.completed_shards(plan) == {0, 1}
    found, failures = work_plan.read_results(plan, {0, 1})
    assert found == [a_mark(0, done=2, failed=0), a_mark(1, done=1, failed=1)]
    assert failures.schema == FAILURES and failures.to_pylist() == [failure]
    totals = work_plan.sum_results(found)
    assert (totals["planned"], totals["done"], totals["failed"]) == (4, 3, 1)
    assert totals["audio_hours"] == 1.0 and totals["seconds_by_stage"] == {"decode": 3.0, "model": 0.5}


def test_shards_keep_every_worker_busy_and_a_crash_cheap() -> None:
    assert work_plan.shard_size(1_000_000, workers=64) == work_plan.MAX_TRACKS_PER_SHARD
    assert work_plan.shard_size(80, workers=2) == 10
    assert work_plan.shard_size(3, workers=16) == 1


def test_the_first_mark_of_a_shard_stays(root: str) -> None:
    plan = work_plan.write_plan(tracks(5), Location(root), run_id="r", tracks_per_shard=2, parameters={})
    work_plan.complete_shard(plan, a_mark(0, done=2, failed=0), [])
    work_plan.complete_shard(plan, a_mark(0, done=1, failed=1), [])  # a worker of a killed run that lived on
    assert work_plan.read_results(plan, {0})[0] == [a_mark(0, done=2, failed=0)]


def test_what_a_crash_leaves_of_a_discarded_plan_is_no_plan(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Location(root) / "run"
    work_plan.write_plan(tracks(5), folder, run_id="r", tracks_per_shard=2, parameters={})
    monkeypatch.setattr(Location, "delete_tree", lambda location: None)  # killed before
    work_plan.delete_plan(folder)
    assert work_plan.load_plan(folder) is None and folder.files() != []
