"""A plan is complete or ignored, every track is in one shard, and a result file completes a shard."""

import json
from dataclasses import asdict

import pyarrow as pa
import pytest

from mtl_core.errors import InputError
from mtl_core.schema import FAILURES
from mtl_core.storage import work_plan
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.storage.work_plan import ShardResult
from mtl_core.timing import StageTimes


def tracks(n: int) -> pa.Table:
    return pa.table({"track_id": [f"t{i:05}" for i in range(n)], "uri": ["/x"] * n})


def a_result(shard: int, done: int, failed: int) -> ShardResult:
    spent = StageTimes(seconds={"decode": 1.5, "model": 0.25}, cpu_s=2.0)
    return ShardResult(shard=shard, output="f", done=done, failed=failed, n_segments=3, audio_s=1800.0, spent=spent)


@pytest.mark.parametrize(("n", "per_shard"), [(1, 1), (7, 3), (2048, 32), (2049, 32), (300, 2)])
def test_every_track_is_in_one_shard(root: str, n: int, per_shard: int) -> None:
    folder = Location(root)
    plan = work_plan.write_plan(tracks(n), folder, run_id="r", tracks_per_shard=per_shard, parameters={"model_id": "m"})
    assert work_plan.load_plan(folder) == plan
    assert plan.n_shards == -(-n // per_shard)
    last = plan.n_shards - 1
    track_ids = [row["track_id"] for shard in sorted({0, last // 2, last}) for row in work_plan.read_shard(plan, shard)]
    assert len(track_ids) == len(set(track_ids)) and track_ids[-1] == f"t{n - 1:05}"
    assert len(work_plan.read_shard(plan, 0)) == min(n, per_shard)
    read = work_plan.read_columns(plan, ["track_id"]).to_table()
    assert read["track_id"].to_pylist() == tracks(n)["track_id"].to_pylist()


def test_a_plan_without_its_last_file_is_ignored(root: str) -> None:
    folder = Location(root)
    assert work_plan.load_plan(folder) is None
    work_plan.write_plan(tracks(3), folder, run_id="r", tracks_per_shard=1, parameters={})
    (folder / "plan.json").delete()
    assert work_plan.load_plan(folder) is None


def test_results_have_counts_and_failures(root: str) -> None:
    plan = work_plan.write_plan(tracks(5), Location(root), run_id="r", tracks_per_shard=2, parameters={})
    assert work_plan.completed_shards(plan) == set()
    failure = dict.fromkeys(FAILURES.names) | {"track_id": "t00003", "permanent": True, "attempts": 1}
    work_plan.complete_shard(plan, a_result(1, done=1, failed=1), [failure])
    work_plan.complete_shard(plan, a_result(0, done=2, failed=0), [])
    assert work_plan.completed_shards(plan) == {0, 1}
    results, failures = work_plan.read_results(plan, {0, 1})
    assert results == [a_result(0, done=2, failed=0), a_result(1, done=1, failed=1)]
    assert failures.schema == FAILURES and failures.to_pylist() == [failure]
    totals = work_plan.sum_results(results)
    assert (totals["planned"], totals["done"], totals["failed"]) == (4, 3, 1)
    assert totals["audio_hours"] == 1.0 and totals["seconds_by_stage"] == {"decode": 3.0, "model": 0.5}


def test_shards_are_small_enough_for_all_workers_and_for_a_crash() -> None:
    assert work_plan.shard_size(1_000_000, workers=64) == work_plan.MAX_TRACKS_PER_SHARD
    assert work_plan.shard_size(80, workers=2) == 10
    assert work_plan.shard_size(3, workers=16) == 1


def test_the_first_result_of_a_shard_stays(root: str) -> None:
    plan = work_plan.write_plan(tracks(5), Location(root), run_id="r", tracks_per_shard=2, parameters={})
    work_plan.complete_shard(plan, a_result(0, done=2, failed=0), [])
    work_plan.complete_shard(plan, a_result(0, done=1, failed=1), [])  # a leftover worker of a killed run
    assert work_plan.read_results(plan, {0})[0] == [a_result(0, done=2, failed=0)]


def test_a_half_deleted_plan_is_ignored(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Location(root) / "run"
    work_plan.write_plan(tracks(5), folder, run_id="r", tracks_per_shard=2, parameters={})
    monkeypatch.setattr(Location, "delete_tree", lambda location: None)  # killed before it
    work_plan.delete_plan(folder)
    assert work_plan.load_plan(folder) is None and folder.files() != []


def test_failures_of_an_older_program_are_null_in_a_new_column(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = work_plan.write_plan(tracks(2), Location(root), run_id="r", tracks_per_shard=1, parameters={})
    failure = dict.fromkeys(FAILURES.names) | {"track_id": "t00000", "permanent": True, "attempts": 1}
    work_plan.complete_shard(plan, a_result(0, done=0, failed=1), [failure])
    monkeypatch.setattr(work_plan, "FAILURES", FAILURES.append(pa.field("host", pa.string())))
    work_plan.complete_shard(plan, a_result(1, done=0, failed=1), [failure | {"track_id": "t00001", "host": "h"}])
    assert work_plan.read_results(plan, {0, 1})[1]["host"].to_pylist() == [None, "h"]


def test_the_runs_in_progress_are_listed_with_and_without_a_plan(root: str) -> None:
    out = Location(root)
    assert work_plan.runs_in_progress(out) == []
    folders = [out / work_plan.RUNS_IN_PROGRESS / run_id for run_id in ("1", "2")]
    work_plan.write_plan(tracks(1), folders[1], run_id="2", tracks_per_shard=1, parameters={})
    (folders[0] / "plan-00000.parquet").write_bytes(b"half a plan")
    assert work_plan.runs_in_progress(out) == folders


def test_a_run_that_a_newer_version_has_begun_is_refused_in_one_line(root: str) -> None:
    begun, folder = "a newer version of this program has begun this run, as new_field shows", Location(root)
    plan = work_plan.write_plan(tracks(3), folder, run_id="r", tracks_per_shard=1, parameters={})
    newer = json.loads((folder / "plan.json").read_bytes()) | {"new_field": 1}
    (folder / "plan.json").write_json(newer)
    with pytest.raises(InputError, match=begun):
        work_plan.load_plan(folder)
    result = a_result(0, done=1, failed=0)
    for shard, counts in enumerate(
        (asdict(result) | {"new_field": 1}, asdict(result) | {"spent": asdict(result.spent) | {"new_field": 1}})
    ):
        metadata = {b"counts": json.dumps(counts).encode()}
        rows = pa.Table.from_pylist([], schema=FAILURES.with_metadata(metadata))
        (folder / f"done-{shard:06}.parquet").write_bytes(to_bytes(rows))
        with pytest.raises(InputError, match=begun):
            work_plan.read_results(plan, {shard})
