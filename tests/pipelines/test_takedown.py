"""A takedown removes the rows, nights skip forgotten tracks, and after a purge no file under OUT has an id."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.stored_texts import places_of
from builders.takedowns import IDS, committed, ids, names, rows, track, unfinished

from mtl_core.errors import InputError, RunError
from mtl_core.pipelines import takedown
from mtl_core.pipelines.night import run_end
from mtl_core.schema import TAGS
from mtl_core.storage import lease, work_plan
from mtl_core.storage.lease import Lease
from mtl_core.storage.location import Location
from mtl_core.storage.work_plan import RUNS_IN_PROGRESS
from mtl_core.tables import commit, delta, maintenance
from mtl_core.tables import takedown as row_takedown

N, N_FORGOTTEN = 20_000, 1_000


@pytest.fixture
def out(root: str) -> Location:
    """Two nights: tracks 0 to 29 are tagged, 30 to 39 failed; the second night replaced some."""
    out = Location(root)
    committed(out, "1", np.arange(25), np.arange(25, 40))
    committed(out, "2", np.arange(20, 30), np.arange(0))
    assert rows(out, "tags") == names(*range(30)) and rows(out, "failures") == names(*range(30, 40))
    return out


@pytest.fixture
def lock(out: Location) -> Iterator[Lease]:
    with lease.acquire(out) as lock:
        yield lock


def version(out: Location, name: str) -> int:
    table = delta.open_table(out, name)
    assert table is not None
    return table.version()


def test_forgotten_tracks_leave_both_tables_in_one_commit_each(out: Location, lock: Lease) -> None:
    before = [version(out, name) for name in delta.TABLE_SCHEMAS]
    result = takedown.forget(out, ids(3, 35, 99), lock, confirmed=True)
    assert result.rows == {"tags": 1, "failures": 1} and result.n_added == 3
    assert rows(out, "tags") == names(*range(30)) - names(3)
    assert rows(out, "failures") == names(*range(30, 40)) - names(35)
    assert [version(out, name) for name in delta.TABLE_SCHEMAS] == [number + 1 for number in before]
    again = takedown.forget(out, ids(3, 35, 99), lock)
    assert again.rows == {"tags": 0, "failures": 0} and again.n_added == 0
    assert [version(out, name) for name in delta.TABLE_SCHEMAS] == [number + 1 for number in before]


def test_a_pruning_keeps_the_tracks_of_a_manifest_and_forgets_none(out: Location, lock: Lease) -> None:
    kept = pa.dataset.dataset(ids(*range(0, 36), 77))
    assert takedown.prune(out, kept, lock, confirmed=True).rows == {"tags": 0, "failures": 4}
    assert rows(out, "failures") == names(*range(30, 36)) and rows(out, "tags") == names(*range(30))
    assert not (out / "forgotten.parquet").exists()


def test_more_than_a_twentieth_of_the_rows_needs_a_confirmation(out: Location, lock: Lease) -> None:
    assert row_takedown.MAX_SHARE_UNCONFIRMED == 0.05
    with pytest.raises(InputError, match=r"3 of 40 rows would be removed, 7\.5%: more than 5% needs --yes"):
        takedown.forget(out, ids(1, 2, 31), lock)
    with pytest.raises(InputError, match="40 of 40 rows"):
        takedown.prune(out, pa.dataset.dataset(ids(99)), lock)
    assert len(rows(out, "tags") | rows(out, "failures")) == 40 and not (out / "forgotten.parquet").exists()
    takedown.forget(out, ids(1, 31), lock)
    assert len(rows(out, "tags") | rows(out, "failures")) == 38, "5 % is not more than 5 %"


def test_a_run_that_ends_after_the_takedown_brings_no_forgotten_track_back(out: Location, lock: Lease) -> None:
    plan = unfinished(out, "3", [3, 50, 51], [35, 60])
    result = takedown.forget(out, ids(3, 35, 51), lock, confirmed=True)
    assert result.holding == ["3"]
    record, _ = run_end.end_run(plan, out, lock, start_s=0.0, tracks_per_s=0.0)
    assert (record["planned"], record["tagged"], record["failed"], record["dropped"]) == (5, 1, 1, 3)
    assert not (rows(out, "tags") | rows(out, "failures")) & names(3, 35, 51)
    assert names(50) <= rows(out, "tags") and names(60) <= rows(out, "failures")


def test_a_run_with_a_wrong_result_of_a_forgotten_track_is_not_committed(out: Location, lock: Lease) -> None:
    plan = unfinished(out, "3", [3, 3], [60])
    takedown.forget(out, ids(3), lock)
    with pytest.raises(commit.VerificationError, match="3 were tagged or failed, 2 of them distinct"):
        run_end.end_run(plan, out, lock, start_s=0.0, tracks_per_s=0.0)


def test_a_commit_that_has_begun_is_ended_before_the_takedown(out: Location, lock: Lease) -> None:
    plan = unfinished(out, "3", [3, 50], [35, 4])

    class DiesError(Exception):
        pass

    def dies() -> None:
        if commit.has_committed(out, "3"):
            raise DiesError

    results, failures = work_plan.read_results(plan, [0])
    files = [(plan.folder / results[0].output, 2)]
    planned = work_plan.read_columns(plan, ["track_id"])
    verified = commit.verify_and_merge(files, planned, failures, out, run_id="3", model_id="m")
    with pytest.raises(DiesError):
        commit.commit_run(out, verified, dies)
    result = takedown.forget(out, ids(3, 4), lock, purge_now=True)
    assert result.rows == {"failures": 1, "tags": 1}
    assert rows(out, "tags") == names(*range(30), 50) - names(3, 4)
    assert rows(out, "failures") == names(*range(30, 40)), "the failure of 4 was committed, and is forgotten"
    assert (out / "runs" / "3.json").exists() and not work_plan.runs_in_progress(out)


def test_restoring_an_earlier_state_brings_no_forgotten_track_back(out: Location, lock: Lease) -> None:
    takedown.forget(out, ids(3, 22, 35), lock, confirmed=True)
    for _ in range(2):  # repeating it changes no row
        maintenance.restore(out, "2", lock.renew)
        assert rows(out, "tags") == names(*range(25)) - names(3, 22)
        assert rows(out, "failures") == names(*range(25, 40)) - names(35)


def test_a_purge_deletes_the_runs_and_records_with_ids_and_keeps_the_others(out: Location, lock: Lease) -> None:
    unfinished(out, "holds", [3, 50], [60])
    unfinished(out, "holds-not", [51], [61])
    (out / RUNS_IN_PROGRESS / "half" / "plan-00000.parquet").write_bytes(b"half a plan")
    (out / "runs" / ".0123.tmp").write_bytes(b"half a record")
    (out / "export.parquet").write_bytes(b"an export")
    texts = {
        "value": track(3),
        "message": f"'{track(3)}' cannot be read",
        "uri": f"s3://masters/{track(3)}",
        "other": f"s3://masters/{track(4)}",
    }
    for name, text in texts.items():
        (out / "runs" / f"{name}.json").write_json({"warnings": [{"text": text}]})
    (out / "runs" / "key.json").write_json({track(3): 1})
    result = takedown.forget(out, ids(3), lock, purge_now=True)
    assert result.purged is not None and result.holding == []
    assert result.purged.runs == ["holds"]
    assert result.purged.records == [".0123.tmp", "key.json", "message.json", "uri.json", "value.json"]
    assert result.purged.others == ["export.parquet"]
    assert {file.name for file in (out / "runs").files()} == {"1.json", "2.json", "other.json"}
    assert [folder.name for folder in work_plan.runs_in_progress(out)] == ["holds-not"]


def test_a_record_that_is_not_json_stops_a_purge(out: Location, lock: Lease) -> None:
    (out / "runs" / "x.json").write_bytes(b"{")
    with pytest.raises(RunError, match=r"x\.json is no record, delete it and repeat"):
        takedown.forget(out, ids(3), lock, purge_now=True)
    (out / "runs" / "x.json").delete()
    assert takedown.forget(out, ids(3), lock, purge_now=True).purged is not None


def test_after_a_purge_there_is_one_version_and_nights_go_on(out: Location, lock: Lease) -> None:
    takedown.forget(out, ids(3), lock, purge_now=True)
    for name in delta.TABLE_SCHEMAS:
        table = delta.open_table(out, name)
        assert table is not None and len(table.history()) == 1 and table.history()[0]["purged"]
        with pytest.raises(InputError, match="cannot be opened"):
            delta.open_table(out, name, table.version() - 1)
    settled = [version(out, name) for name in delta.TABLE_SCHEMAS]
    takedown.forget(out, ids(3), lock, purge_now=True)
    assert [version(out, name) for name in delta.TABLE_SCHEMAS] == settled, "nothing is left to purge"
    with pytest.raises(InputError, match="no commit of run '2'"):
        maintenance.restore(out, "2", lock.renew)
    assert commit.has_committed(out, "2"), "the log keeps which runs were committed"
    committed(out, "4", np.array([30, 70]), np.array([5]))
    assert rows(out, "tags") == names(*range(30), 30, 70) - names(3, 5)
    assert rows(out, "failures") == names(*range(31, 40), 5)
    maintenance.clean(out, keep_days=1, check_lease=lock.renew)
    maintenance.restore(out, "4", lock.renew)
    assert rows(out, "tags") == names(*range(30)) - names(3)


def large(out: Location) -> set[str]:
    """20,000 tracks in three nights, an unfinished run and a record with ids. Returns the 1,000 ids to remove."""
    committed(out, "1", np.arange(0, N, 2), np.arange(1, N, 2))
    committed(out, "2", np.arange(1, N // 2, 2), np.arange(0))
    committed(out, "3", np.arange(0, N, 40), np.arange(0))
    for name in delta.TABLE_SCHEMAS:
        delta.open_table(out, name).create_checkpoint()  # type: ignore[union-attr]
    gone = range(0, N, N // N_FORGOTTEN)
    unfinished(out, "unfinished", list(gone), [N + 1])
    (out / "runs" / "4.json").write_json({"warnings": [f"{track(0)!r} is slow"], "at": datetime.now(UTC).isoformat()})
    return {f"track-{number:06}" for number in gone}


#: Where the checker must find ids before a purge, so that it is known to look there.
PLACES = [
    *(f"{kind}: {part}" for kind in ("data file", "plan", "result") for part in ("column", "footer")),
    "checkpoint: column", "log entry: value", "record: value", "data file: bytes", "checkpoint: bytes",
]  # fmt: skip


@pytest.mark.parametrize("how", ["forget", "prune"])
def test_a_thousand_ids_are_found_before_a_purge_and_none_after(tmp_path: Path, how: str) -> None:
    out = Location(str(tmp_path))
    gone = large(out)
    with lease.acquire(out) as lock:

        def take_down(purge_now: bool) -> takedown.TakedownResult:
            every = [track(number) for number in range(N)]
            if how == "forget":
                leave = pa.table({"track_id": [name for name in every if name[-12:] in gone]})
                return takedown.forget(out, leave, lock, purge_now=purge_now)
            kept = pa.dataset.dataset(pa.table({"track_id": [name for name in every if name[-12:] not in gone]}))
            return takedown.prune(out, kept, lock, purge_now=purge_now)

        assert sum(take_down(False).rows.values()) == N_FORGOTTEN
        before = places_of(out, IDS)
        for place in PLACES:
            assert before[place] & gone, f"none is found in {place}"
        assert before["data file: column"] >= gone and before["plan: column"] >= gone
        found = [place for place, texts in before.items() if texts & gone]
        print(f"{how}: before the purge, {len(gone)} ids in {found}")
        result = take_down(True)
    after = places_of(out, IDS)
    assert {place: texts & gone for place, texts in after.items() if texts & gone} == {}
    assert len(after["data file: column"]) == N - N_FORGOTTEN, "the others stay"
    assert result.purged is not None and result.purged.records == ["4.json"]
    assert json.loads((out / "runs" / "3.json").read_bytes()) == {"run_id": "3"}
    assert pq.read_schema(tmp_path / "tags" / data_file(out)).names == TAGS.names


def data_file(out: Location) -> str:
    table = delta.open_table(out, "tags")
    assert table is not None
    return table.file_uris()[0].rpartition("/")[2]
