"""A commit is complete, happens once, and a track is always in at least one table."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from nights import a_failure, a_tag, night, nothing, state, table_rows

from mtl_core.errors import RunError
from mtl_core.schema import FAILURES, TAGS
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.tables import commit, data_files, delta, maintenance, rewriting
from mtl_core.tables.commit import VerificationError


def test_a_track_has_one_row_after_every_night(root: str) -> None:
    out = Location(root)
    night(out, "1", [a_tag("a", run="1"), a_tag("b", run="1"), a_tag("c", run="1")], [a_failure("d") | {"run_id": "1"}])
    assert state(out) == {"a": "tag 1", "b": "tag 1", "c": "tag 1", "d": "failure 1"}
    night(out, "2", [a_tag("d", run="2"), a_tag("e", run="2")], [a_failure("a") | {"run_id": "2"}])
    assert state(out) == {"a": "failure 2", "b": "tag 1", "c": "tag 1", "d": "tag 2", "e": "tag 2"}
    night(out, "3", [a_tag(i, "new", run="3") for i in "abcd"], [], "new")  # e is gone from the manifest
    assert state(out) == {"a": "tag 3", "b": "tag 3", "c": "tag 3", "d": "tag 3", "e": "tag 2"}


def test_a_commit_happens_once(root: str) -> None:
    out = Location(root)
    night(out, "1", [a_tag("a"), a_tag("b")], [a_failure("c")])
    versions = [delta.table_version(delta.open_table(out, name)) for name in ("tags", "failures")]
    night(out, "1", [a_tag("a"), a_tag("b")], [a_failure("c")])
    assert [delta.table_version(delta.open_table(out, name)) for name in ("tags", "failures")] == versions
    assert len(state(out)) == 3


@pytest.mark.parametrize(
    ("planned", "staged", "message"),
    [
        (["a", "b"], [["a"]], "2 tracks were planned, 1 were tagged"),
        (["a", "b"], [["a", "b"], ["b"]], "3 were tagged or failed, 2 of them distinct"),
        (["a", "b"], [["a", "x"]], "1 tracks were not planned, e.g. 'x'"),
        (["a"], [None], "cannot be read"),
        (["a"], [["a", "b"]], "2 rows of"),
    ],
)
def test_results_that_differ_from_the_plan_are_not_committed(
    tmp_path: Path, planned: list[str], staged: list[list[str] | None], message: str
) -> None:
    out, files = Location(str(tmp_path)), []
    for number, ids in enumerate(staged):
        file = out / f"{number}.parquet"
        data = bytes(to_bytes(pa.Table.from_pylist([a_tag(i) for i in ids or []], schema=TAGS)))
        file.write_bytes(data if ids else data[:20])
        files.append((file, len(planned) if "rows of" in message else len(ids or [])))
    with pytest.raises(VerificationError, match=message):
        commit.verify_and_merge(
            files, pa.table({"track_id": planned}), FAILURES.empty_table(), out, run_id="r", model_id="m"
        )


def test_a_staged_file_that_lacks_a_column_of_version_0_1_is_not_committed(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    (out / "0.parquet").write_bytes(to_bytes(pa.Table.from_pylist([a_tag("a")], TAGS).drop_columns("artist")))
    with pytest.raises(VerificationError, match="1 rows of"):
        commit.verify_and_merge(
            [(out / "0.parquet", 1)],
            pa.table({"track_id": ["a"]}),
            FAILURES.empty_table(),
            out,
            run_id="r",
            model_id="m",
        )


def test_a_run_that_lost_its_lease_cannot_commit(root: str) -> None:
    out = Location(root)
    night(out, "1", [a_tag("a"), a_tag("b")], [])

    def taken_over() -> None:
        raise LeaseLostError("another run has taken over")

    with pytest.raises(LeaseLostError):
        night(out, "2", [a_tag("a", run="2")], [], check_lease=taken_over)
    assert state(out) == {"a": "tag r", "b": "tag r"}


def test_a_commit_fails_if_another_run_commits_after_the_lease_check(root: str) -> None:
    out = Location(root)
    night(out, "1", [a_tag("a"), a_tag("b")], [])

    def another_run_commits() -> None:
        night(out, "3", [a_tag("c", run="3")], [])

    with pytest.raises(RunError, match="another program"):
        night(out, "2", [a_tag("c", run="2")], [], check_lease=another_run_commits)
    assert state(out) == {"a": "tag r", "b": "tag r", "c": "tag 3"}


def test_a_reader_finds_every_track_before_every_transaction(root: str) -> None:
    out = Location(root)
    night(out, "1", [a_tag("a"), a_tag("b")], [a_failure("c"), a_failure("d")])
    seen = []

    def look() -> None:
        tags, failures = table_rows(out, "tags"), table_rows(out, "failures")
        seen.append([len(tags), len(failures)])
        assert {row["track_id"] for row in [*tags, *failures]} == set("abcd")

    night(out, "2", [a_tag("b", run="2"), a_tag("c", run="2")], [a_failure("a")], check_lease=look)
    look()
    assert seen == [[2, 2], [2, 3], [2, 3], [2, 2]]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_nights_agree_with_a_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    for module in (data_files, rewriting, maintenance):
        monkeypatch.setattr(module, "ROWS_PER_FILE", 8)
    monkeypatch.setattr(data_files, "ROWS_PER_GROUP", 3)
    out, draw, expected, states = Location(str(tmp_path)), random.Random(seed), dict[str, str](), list[Any]()
    track_ids = [f"{i:02}" for i in range(40)]
    for run in map(str, range(5)):
        planned = sorted(draw.sample(track_ids, 20))
        failed = set(draw.sample(planned, 5))
        states.append((run, dict(expected)))
        tags = [a_tag(i, run=run) for i in planned if i not in failed]
        night(out, run, tags, [a_failure(i) | {"run_id": run} for i in planned if i in failed])
        expected |= {i: f"{'failure' if i in failed else 'tag'} {run}" for i in planned}
        if draw.random() < 0.4:
            maintenance.compact(out, nothing)
        assert state(out) == expected
    run, before = states[draw.randrange(5)]
    maintenance.restore(out, run, nothing)
    assert state(out) == before
