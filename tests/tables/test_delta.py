"""Truths about the tables: a track is in one of them, a commit happens once, a plan holds what is still to do."""

import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from mtl_core.dataset import manifest as manifests
from mtl_core.errors import RunError
from mtl_core.schema import FAILURES, MANIFEST, TAGS
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location
from mtl_core.tables import commit, data_files, delta, export, maintenance, planning, rewriting
from mtl_core.tables.commit import VerificationError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def manifest(ids: str, content: str = "c") -> pa.Table:
    rows = [dict.fromkeys(MANIFEST.names) | {"track_id": i, "uri": f"/{i}", "content_id": content} for i in ids]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def a_tag(track_id: str, model: str = "m", content: str | None = "c", run: str = "r") -> dict[str, Any]:
    top = [{"label": "x", "probability": 0.75}, {"label": "y", "probability": 0.25}]
    return dict.fromkeys(TAGS.names) | {
        "track_id": track_id, "uri": f"/{track_id}", "content_id": content, "model_id": model, "run_id": run,
        "artist": "x", "artist_confidence": 0.75, "artist_top": top, "embedding": [0.5] * 96, "tagged_at": NOW,
    }  # fmt: skip


def a_failure(track_id: str, model: str = "m", permanent: bool = True, attempts: int = 1) -> dict[str, Any]:
    return dict.fromkeys(FAILURES.names) | {
        "track_id": track_id, "uri": f"/{track_id}", "content_id": "c", "stage": "decode", "error": "corrupt",
        "message": "no", "attempts": attempts, "permanent": permanent, "model_id": model, "run_id": "r", "failed_at":
        NOW,
    }  # fmt: skip


def night(root: Location, run: str, tagged: list[dict[str, Any]], failed: list[dict[str, Any]], model: str = "m",
          check_lease: Callable[[], None] = lambda: None) -> None:  # fmt: skip
    """What a run does after its work: its tags lie in files of one row."""
    staged = []
    for row in tagged:
        file = root / "_run" / run / f"{row['track_id']}.parquet"
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([row], schema=TAGS), buffer)
        file.write_bytes(buffer.getvalue().to_pybytes())
        staged.append((file, 1))
    planned = pa.table({"track_id": [row["track_id"] for row in [*tagged, *failed]]})
    failures = pa.Table.from_pylist(failed, schema=FAILURES)
    outcome = commit.verify_and_merge(staged, planned, failures, root, run_id=run, model_id=model)
    commit.commit_run(root, outcome, check_lease)


def state(root: Location) -> dict[str, str]:
    """track_id -> what its one row says."""
    tags, failures = (delta.open_table(root, name).to_pyarrow_table().to_pylist() for name in ("tags", "failures"))  # type: ignore[union-attr]
    found = [(r["track_id"], f"tag {r['run_id']}") for r in tags]
    found += [(r["track_id"], f"failure {r['run_id']}") for r in failures]
    assert len(found) == len(dict(found)), "a track in two rows"
    return dict(found)


def test_a_track_has_one_row_through_the_nights(root: str) -> None:
    at = Location(root)
    night(at, "1", [a_tag("a", run="1"), a_tag("b", run="1"), a_tag("c", run="1")], [a_failure("d") | {"run_id": "1"}])
    assert state(at) == {"a": "tag 1", "b": "tag 1", "c": "tag 1", "d": "failure 1"}
    night(at, "2", [a_tag("d", run="2"), a_tag("e", run="2")], [a_failure("a") | {"run_id": "2"}])
    assert state(at) == {"a": "failure 2", "b": "tag 1", "c": "tag 1", "d": "tag 2", "e": "tag 2"}
    night(at, "3", [a_tag(i, "new", run="3") for i in "abcd"], [], "new")  # e is gone from the manifest
    assert state(at) == {"a": "tag 3", "b": "tag 3", "c": "tag 3", "d": "tag 3", "e": "tag 2"}


def test_new_tracks_rewrite_nothing(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    night(at, "1", [a_tag("a")], [])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("part-*")}
    night(at, "2", [a_tag("b")], [])
    assert {file: file.stat().st_mtime_ns for file in before} == before
    actions = [
        json.loads(line) for line in (tmp_path / "tags/_delta_log/00000000000000000002.json").read_text().splitlines()
    ]
    assert [next(iter(action)) for action in actions if "add" in action or "remove" in action] == ["add"]


def test_a_commit_happens_once(root: str) -> None:
    at = Location(root)
    night(at, "1", [a_tag("a"), a_tag("b")], [a_failure("c")])
    versions = [delta.open_table(at, name).version() for name in ("tags", "failures")]  # type: ignore[union-attr]
    night(at, "1", [a_tag("a"), a_tag("b")], [a_failure("c")])
    assert [delta.open_table(at, name).version() for name in ("tags", "failures")] == versions  # type: ignore[union-attr]
    assert len(state(at)) == 3


def test_the_table_has_the_schema_of_the_contract(root: str) -> None:
    at = Location(root)
    night(at, "1", [a_tag("a")], [a_failure("b")])
    for name, schema in delta.TABLE_SCHEMAS.items():
        table = DeltaTable((at / name).uri, storage_options=delta.storage_options(at))
        for field, found in zip(schema, pa.schema(table.schema().to_arrow()), strict=True):
            assert field.name == found.name and field.type.equals(found.type), (field, found)
    rows = (
        delta.open_table(at, "tags")
        .to_pyarrow_table(  # type: ignore[union-attr]
        )
        .to_pylist()
    )
    assert rows == [a_tag("a")]


def test_the_plan_is_what_nothing_speaks_for_yet(root: str) -> None:
    at = Location(root)
    open_ids = lambda table: table["track_id"].to_pylist()  # noqa: E731
    assert open_ids(planning.plan_tracks(manifest("dcba"), at, "m", retry_failed=False)) == ["a", "b", "c", "d"]
    night(at, "1", [a_tag("a"), a_tag("gone")], [a_failure("b"), a_failure("c", permanent=False, attempts=2)])
    plan = planning.plan_tracks(manifest("abcd"), at, "m", retry_failed=False)
    assert plan.schema.names == ["track_id", "uri", "content_id", "size_bytes", "attempts"]
    assert list(zip(*plan.select(["track_id", "attempts"]).to_pydict().values(), strict=True)) == [("c", 2), ("d", 0)]
    assert open_ids(planning.plan_tracks(manifest("abcd"), at, "m", retry_failed=True)) == ["b", "c", "d"]
    assert open_ids(planning.plan_tracks(manifest("abcd"), at, "m", retry_failed=True).slice(0, 2)) == ["b", "c"]
    assert open_ids(planning.plan_tracks(manifest("abcd"), at, "other", retry_failed=False)) == ["a", "b", "c", "d"]
    assert open_ids(planning.plan_tracks(manifest("ab", content="changed"), at, "m", retry_failed=False)) == [
        "a",
        "b",
    ]


def test_an_unknown_content_is_the_same_content(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    night(at, "1", [a_tag("a", content=None)], [])
    nothing_known = manifest("a").set_column(2, "content_id", pa.nulls(1, pa.string()))
    assert not len(planning.plan_tracks(nothing_known, at, "m", retry_failed=False))


@pytest.mark.parametrize(
    ("planned", "staged", "said"),
    [
        (["a", "b"], [["a"]], "2 tracks were planned, 1 were tagged"),
        (["a", "b"], [["a", "b"], ["b"]], "3 were tagged or failed, 2 of them distinct"),
        (["a", "b"], [["a", "x"]], "1 tracks were not planned, e.g. 'x'"),
        (["a"], [None], "cannot be read"),
        (["a"], [["a", "b"]], "2 rows of"),
    ],
)
def test_what_differs_from_the_plan_is_not_committed(
    tmp_path: Path, planned: list[str], staged: list[list[str] | None], said: str
) -> None:
    at, files = Location(str(tmp_path)), []
    for number, ids in enumerate(staged):
        file = at / f"{number}.parquet"
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([a_tag(i) for i in ids or []], schema=TAGS), buffer)
        file.write_bytes(buffer.getvalue().to_pybytes()[: None if ids else 20])
        files.append((file, len(planned) if "rows of" in said else len(ids or [])))
    with pytest.raises(VerificationError, match=said):
        commit.verify_and_merge(
            files, pa.table({"track_id": planned}), FAILURES.empty_table(), at, run_id="r", model_id="m"
        )


def test_the_export_is_the_current_state(root: str) -> None:
    at = Location(root)
    assert export.export_parquet(at, at / "empty.parquet") == 0
    night(at, "1", [a_tag("a"), a_tag("b")], [])
    night(at, "2", [a_tag("a", "n", run="2")], [], "n")
    assert export.export_parquet(at, at / "tags.parquet") == 2
    rows = pq.read_table(pa.BufferReader((at / "tags.parquet").read_bytes()))
    assert rows.schema == TAGS
    assert {row["track_id"]: row["run_id"] for row in rows.to_pylist()} == {"a": "2", "b": "r"}


def test_a_run_that_was_succeeded_cannot_commit(root: str) -> None:
    at = Location(root)
    night(at, "1", [a_tag("a"), a_tag("b")], [])

    def taken_over() -> None:
        raise LeaseLostError("another run has taken over")

    with pytest.raises(LeaseLostError):
        night(at, "2", [a_tag("a", run="2")], [], check_lease=taken_over)
    assert state(at) == {"a": "tag r", "b": "tag r"}


def test_nothing_slips_between_the_last_check_and_the_commit(root: str) -> None:
    at = Location(root)
    night(at, "1", [a_tag("a"), a_tag("b")], [])

    def pause_here_while_the_successor_commits() -> None:
        night(at, "3", [a_tag("c", run="3")], [])

    with pytest.raises(RunError, match="another program"):
        night(at, "2", [a_tag("c", run="2")], [], check_lease=pause_here_while_the_successor_commits)
    assert state(at) == {"a": "tag r", "b": "tag r", "c": "tag 3"}


def test_a_reader_finds_every_track_at_every_step_of_a_commit(root: str) -> None:
    at = Location(root)
    night(at, "1", [a_tag("a"), a_tag("b")], [a_failure("c"), a_failure("d")])
    seen = []

    def look() -> None:
        tags, failures = (delta.open_table(at, name).to_pyarrow_table() for name in ("tags", "failures"))  # type: ignore[union-attr]
        seen.append([len(tags), len(failures)])
        assert {*tags["track_id"].to_pylist(), *failures["track_id"].to_pylist()} == set("abcd")

    night(at, "2", [a_tag("b", run="2"), a_tag("c", run="2")], [a_failure("a")], check_lease=look)
    look()
    assert seen == [[2, 2], [2, 3], [2, 3], [2, 2]]


def test_what_is_known_of_a_file_hides_no_row(tmp_path: Path) -> None:
    at = Location(str(tmp_path))
    odd = {"artist": None, "content_id": None, "tagged_at": NOW.replace(microsecond=999_999)}
    night(at, "1", [a_tag("a"), a_tag("b") | odd], [a_failure("f"), a_failure("g", permanent=False)])
    night(
        at, "2", [a_tag("y", "n", run="2") | {"artist": "z", "duration_s": 1.5}], [a_failure("h") | {"message": None}]
    )
    for name, schema in delta.TABLE_SCHEMAS.items():
        table = delta.open_table(at, name)
        assert table is not None
        dataset = table.to_pyarrow_dataset()
        rows = dataset.to_table()
        for field in schema:
            if pa.types.is_nested(field.type):
                continue
            for value in set(rows[field.name].to_pylist()):
                asked = ds.field(field.name).is_null() if value is None else ds.field(field.name) == value
                assert dataset.count_rows(filter=asked) == rows[field.name].to_pylist().count(value), (field, value)
    assert len(delta.open_table(at, "tags").file_uris(file_pruning_predicate="track_id = 'y'")) == 1  # type: ignore[union-attr]


def test_only_files_that_may_hold_a_track_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, read = Location(str(tmp_path)), []
    night(at, "1", [a_tag(i) for i in "abc"], [])
    night(at, "2", [a_tag(i) for i in "mno"], [])
    night(at, "3", [a_tag(i) for i in "xyz"], [])
    track_ids = data_files.read_track_ids

    def seen(root: Location, some: list[data_files.DataFile]) -> Any:
        read.extend(part.path.split("-")[1] for part in some)
        return track_ids(root, some)

    monkeypatch.setattr(rewriting, "read_track_ids", seen)
    monkeypatch.setattr(commit, "read_track_ids", seen)
    night(at, "4", [a_tag("n", run="4"), a_tag("d", run="4")], [])
    assert read == ["4", "2"], "its own, to verify them, and the one with n; d would lie between two"
    assert state(at)["n"] == "tag 4" and len(state(at)) == 10


@pytest.mark.parametrize("seed", [0, 1])
def test_any_nights_leave_what_a_dict_would_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(data_files, "ROWS_PER_FILE", 8)
    monkeypatch.setattr(maintenance, "ROWS_PER_FILE", 8)
    monkeypatch.setattr(data_files, "ROWS_PER_GROUP", 3)
    at, draw, known, states = Location(str(tmp_path)), random.Random(seed), dict[str, str](), list[Any]()
    everyone = [f"{i:02}" for i in range(40)]
    for run in map(str, range(5)):
        planned = sorted(draw.sample(everyone, 20))
        failed = set(draw.sample(planned, 5))
        states.append((run, dict(known)))
        tags = [a_tag(i, run=run) for i in planned if i not in failed]
        night(at, run, tags, [a_failure(i) | {"run_id": run} for i in planned if i in failed])
        known |= {i: f"{'failure' if i in failed else 'tag'} {run}" for i in planned}
        if draw.random() < 0.4:
            maintenance.compact(at, lambda: None)
        assert state(at) == known
    run, before = states[draw.randrange(5)]
    maintenance.restore(at, run, lambda: None)
    assert state(at) == before


def test_a_file_is_written_whole_or_not_at_all(root: str) -> None:
    at = Location(root)

    def breaks() -> Any:
        yield pa.Table.from_pylist([a_tag("a")], schema=TAGS)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        data_files.write_files(breaks(), at / "tags", "r", TAGS)
    assert list((at / "tags").walk()) == []


def test_both_tables_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, opened = Location(str(tmp_path)), []
    assert delta.read_snapshot(at) == (None, None)
    night(at, "1", [a_tag("a")], [a_failure("b")])
    open_table = delta.open_table

    def slow(root: Location, name: str, version: int | None = None) -> DeltaTable | None:
        opened.append(name)
        if len(opened) == 2:  # b is tagged after the tags were opened, and before the failures are
            monkeypatch.setattr(delta, "open_table", open_table)
            night(at, "2", [a_tag("b")], [])
            monkeypatch.setattr(delta, "open_table", slow)
        return open_table(root, name, version)

    monkeypatch.setattr(delta, "open_table", slow)
    tags, failures = delta.read_snapshot(at)
    assert tags is not None and failures is not None
    assert tags.to_pyarrow_table()["track_id"].to_pylist() == ["a", "b"] or tags.count() == 2
    assert failures.count() == 0 and len(opened) == 6


def test_a_plan_needs_no_manifest_in_memory(root: str) -> None:
    at = Location(root)
    manifests.write(manifest("dcba"), at / "manifest.parquet")
    night(at, "1", [a_tag("b")], [])
    plan = planning.plan_tracks(manifests.scan(at / "manifest.parquet"), at, "m", retry_failed=False).slice(0, 2)
    assert plan["track_id"].to_pylist() == ["a", "c"]


def test_the_snippets_of_the_page_run(root: str) -> None:
    pytest.importorskip("polars")
    root = root.replace("some place", "out")  # polars 2.1 does not find a table under a path with a space
    at = Location(root)
    night(at, "1", [a_tag(i) for i in "ab"], [a_failure("c")])
    night(at, "2", [a_tag("a", "n", run="2")], [])
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    names: dict[str, Any] = {"OUT": root}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(snippet, names)
    assert sorted(names["tracks"]["track_id"]) == ["a", "b"] and len(names["of_one"]) == 1
    assert names["by_language"]["tracks"].sum() == len(names["tagged"]) == len(names["earlier"]) == 2
    assert sorted(names["before"]["run_id"]) == sorted(names["polars_before"]["run_id"]) == ["r", "r"]
    assert len(names["failed"]) == 1
