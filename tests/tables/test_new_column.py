"""A column is added to TAGS: tables of version 0.1 are read, gain the column, and keep every row findable."""

import runpy
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from nights import a_failure, a_tag, night, nothing, stage, state, table_rows

from mtl_core.errors import InputError
from mtl_core.pipelines.tag_catalogue import TaggingOptions, tag_catalogue
from mtl_core.schema import SINCE, TAGS
from mtl_core.storage.lease import LeaseLostError
from mtl_core.storage.location import Location
from mtl_core.storage.parquet import to_bytes
from mtl_core.tables import commit, delta, export, maintenance, planning
from mtl_core.tables.commit import VerificationError

VERSION_0_1 = Path(__file__).parents[1] / "fixtures" / "version_0_1"
GENRE = pa.field("genre", pa.string(), metadata={SINCE: "0.2.0"})
#: The columns that version 0.2 added, in a row of version 0.1.
NEW = {field.name: None for field in TAGS if (field.metadata or {}).get(SINCE) == b"0.2"}
MOODS = pa.field("moods", pa.list_(pa.string()), metadata={SINCE: "0.2.0"})


@pytest.fixture
def old(tmp_path: Path) -> Location:
    """A copy of the tables of version 0.1: 16 tags, 2 failures."""
    return copy_of_version_0_1(Location(str(tmp_path / "out")))


@pytest.fixture
def old_on_any_store(root: str) -> Location:
    """The same, once on a disk and once on S3."""
    return copy_of_version_0_1(Location(root.replace("some place", "out")))


def copy_of_version_0_1(out: Location) -> Location:
    """Polars 2.1 does not find a table under a path with a space."""
    for path in (VERSION_0_1 / "tagged").rglob("*"):
        if path.is_file():
            (out / str(path.relative_to(VERSION_0_1 / "tagged"))).write_bytes(path.read_bytes())
    return out


def upgrade(monkeypatch: pytest.MonkeyPatch, *fields: pa.Field) -> None:
    """From here on, the program knows more columns of TAGS."""
    monkeypatch.setitem(delta.TABLE_SCHEMAS, "tags", pa.schema([*TAGS, *fields]))


def downgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(delta.TABLE_SCHEMAS, "tags", TAGS)


def newer_night(root: Location, run: str = "new", **options: Any) -> dict[str, str]:
    """A new track, two replaced tags, a failure that now has tags, a tagged track that now fails. Returns the state."""
    before = state(root)
    tagged = sorted(track for track, row in before.items() if row.startswith("tag"))
    failed = sorted(track for track, row in before.items() if row.startswith("failure"))
    tags = [a_tag(track, run=run) | {"genre": "jazz"} for track in ("new", *tagged[2:4], failed[0])]
    failures = [a_failure(track) | {"run_id": run} for track in tagged[:1]]
    night(root, run, tags, failures, **options)
    return before | {row["track_id"]: f"tag {run}" for row in tags} | {tagged[0]: f"failure {run}"}


def assert_filters_find_every_row(root: Location, column: str = "genre", value: Any = "jazz") -> None:
    """Filters and counts by Arrow, polars and DuckDB agree with the rows, for every value of every flat column.

    DuckDB and polars are asked for a value of one column and for its nulls.
    """
    polars = pytest.importorskip("polars")
    table = delta.open_table(root, "tags")
    assert table is not None
    rows, dataset = table.to_pyarrow_table(), table.to_pyarrow_dataset()
    for field in rows.schema:
        if pa.types.is_nested(field.type):
            assert dataset.count_rows(filter=ds.field(field.name).is_null()) == rows[field.name].null_count
            continue
        values = rows[field.name].to_pylist()
        for one in {*values, None}:
            condition = ds.field(field.name).is_null() if one is None else ds.field(field.name) == one
            assert dataset.count_rows(filter=condition) == values.count(one), (field, one)
    values = rows[column].to_pylist()
    assert duckdb.sql(f"SELECT count(*) FROM dataset WHERE {column} IS NULL").fetchall() == [(values.count(None),)]
    if not root.on_s3 and value in values:  # without the log, DuckDB knows only the columns of the files
        query = f"SELECT count(*) FROM read_parquet({table.file_uris()}, union_by_name = true) WHERE {column} IS NULL"
        assert duckdb.sql(query).fetchall() == [(values.count(None),)]
    frame = polars.scan_delta(f"{root}/tags", storage_options=delta.storage_options(root))
    assert len(frame.filter(polars.col(column).is_null()).collect()) == values.count(None)
    assert len(frame.filter(polars.col(column) == value).collect()) == values.count(value)


def test_every_column_since_version_0_1_names_its_version_and_is_nullable() -> None:
    for name, schema in delta.TABLE_SCHEMAS.items():
        table = delta.open_table(Location(str(VERSION_0_1 / "tagged")), name)
        assert table is not None
        columns = [field.name for field in table.schema().fields]
        assert schema.names[: len(columns)] == columns
        assert all(SINCE in field.metadata and field.nullable for field in [*schema][len(columns) :])


def test_a_night_adds_the_column_and_old_rows_are_null(
    old_on_any_store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_on_any_store
    before = {row["track_id"]: row for row in table_rows(old, "tags")}
    opened = delta.open_table(old, "tags")
    upgrade(monkeypatch, GENRE)
    expected = newer_night(old)
    assert state(old) == expected
    for row in table_rows(old, "tags"):
        if row["run_id"] == "new":
            assert row["genre"] == "jazz"
        else:
            assert row == before[row["track_id"]] | NEW | {"genre": None}
    table = delta.open_table(old, "tags")
    assert table is not None and opened is not None
    assert opened.to_pyarrow_table().to_pylist() == [*before.values()], "a reader of the old version is not disturbed"
    assert [field.name for field in table.schema().fields] == [*TAGS.names, "genre"]
    assert_filters_find_every_row(old)
    settled = table.version()
    assert newer_night(old, "later") == state(old)
    assert table.version() == settled and delta.table_version(delta.open_table(old, "tags")) == settled + 1
    assert_filters_find_every_row(old)


def test_the_first_night_of_version_0_2_adds_its_columns(old: Location) -> None:
    before = {row["track_id"]: row for row in table_rows(old, "tags")}
    tagged = min(before)
    night(old, "new", [a_tag(tagged, run="new") | {"lost_s": 0.0}, a_tag("new", run="new") | {"lost_s": 1.5}], [])
    rows = {row["track_id"]: row for row in table_rows(old, "tags")}
    assert {track: row["lost_s"] for track, row in rows.items()} == dict.fromkeys(before) | {tagged: 0.0, "new": 1.5}
    kept = before.keys() - {tagged}
    assert {track: rows[track] for track in kept} == {track: before[track] | NEW for track in kept}
    assert_filters_find_every_row(old, "lost_s", 1.5)


def test_a_night_of_new_tracks_alone_adds_the_column(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, GENRE, MOODS)
    night(old, "new", [a_tag("new", run="new") | {"genre": "jazz", "moods": ["calm"]}], [])
    assert sorted((row["genre"], row["moods"]) for row in table_rows(old, "tags") if row["genre"]) == [
        ("jazz", ["calm"])
    ]
    assert len(table_rows(old, "tags")) == 17
    assert_filters_find_every_row(old)


def test_compaction_and_export_take_old_and_new_files(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, GENRE)
    newer_night(old)
    newer_night(old, "later")
    before = table_rows(old, "tags")
    assert export.export_parquet(old, old / "tags.parquet") == len(before)
    exported = pq.read_table(pa.BufferReader((old / "tags.parquet").read_bytes())).to_pylist()
    assert len(maintenance.compact(old, nothing)["tags"].after) == 1
    for rows in (exported, table_rows(old, "tags")):
        assert {row["track_id"]: row for row in rows} == {row["track_id"]: row for row in before}
    assert_filters_find_every_row(old)


def test_maintenance_of_an_old_table_adds_no_column(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    night(old, "2", [a_tag("a", run="2")], [])
    before = state(old)
    upgrade(monkeypatch, GENRE)
    maintenance.require_tables(old)
    maintenance.compact(old, nothing)
    assert state(old) == before and "genre" not in table_rows(old, "tags")[0]
    assert export.export_parquet(old, old / "tags.parquet") == 17
    maintenance.restore(old, "2", nothing)
    assert len(state(old)) == 18 and "genre" not in table_rows(old, "tags")[0]
    assert newer_night(old) == state(old)
    assert_filters_find_every_row(old)


@pytest.mark.parametrize("run_id", ["2", "new"], ids=["older program's run", "newer program's run"])
def test_a_restore_keeps_the_column_and_finds_the_old_rows(
    old: Location, monkeypatch: pytest.MonkeyPatch, run_id: str
) -> None:
    states = {"2": state(old)}
    night(old, "2", [a_tag("a", run="2")], [])
    states["new"] = state(old)
    upgrade(monkeypatch, GENRE)
    newer_night(old)
    maintenance.compact(old, nothing)
    maintenance.restore(old, run_id, nothing)
    assert state(old) == states[run_id]
    assert {row["genre"] for row in table_rows(old, "tags")} == {None}
    assert_filters_find_every_row(old)
    expected = newer_night(old, "again")
    assert state(old) == expected
    assert_filters_find_every_row(old)


#: Calls of `check_lease` in a night that adds a column: each comes right before a commit.
CUTS = {
    1: "statistics of failures",
    2: "column of failures",
    3: "failures",
    4: "statistics of tags",
    5: "column of tags",
    6: "tags",
    7: "cleared failures",
}


@pytest.mark.parametrize("cut", CUTS, ids=[f"before {name}" for name in CUTS.values()])
def test_a_night_killed_at_any_commit_is_completed(old: Location, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    calls, before = [], state(old)

    def die() -> None:
        calls.append(1)
        if len(calls) == cut:
            raise LeaseLostError("killed")

    upgrade(monkeypatch, GENRE)
    with pytest.raises(LeaseLostError):
        newer_night(old, check_lease=die)
    tags, failures = table_rows(old, "tags"), table_rows(old, "failures")
    assert {row["track_id"] for row in [*tags, *failures]} == {*before} | ({"new"} if cut > 6 else set())
    if cut > 5:
        assert_filters_find_every_row(old)
    else:
        downgrade(monkeypatch)  # the older program can still work: the column does not exist yet
        night(old, "old", [a_tag("from the older program", run="old")], [])
        upgrade(monkeypatch, GENRE)
    tagged = sorted(track for track, row in before.items() if row.startswith("tag"))
    failed = sorted(track for track, row in before.items() if row.startswith("failure"))
    tags = [a_tag(track, run="new") | {"genre": "jazz"} for track in ("new", *tagged[2:4], failed[0])]
    night(old, "new", tags, [a_failure(tagged[0]) | {"run_id": "new"}])
    expected = before | {row["track_id"]: "tag new" for row in tags} | {tagged[0]: "failure new"}
    assert state(old) == expected | ({"from the older program": "tag old"} if cut <= 5 else {})
    assert_filters_find_every_row(old)


def test_an_older_program_refuses_a_newer_table(
    old: Location, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade(monkeypatch, GENRE)
    newer_night(old)
    downgrade(monkeypatch)
    versions = [delta.table_version(delta.open_table(old, name)) for name in delta.TABLE_SCHEMAS]
    message = "does not know the column 'genre': use mtl_core 0.2.0 or newer"
    with pytest.raises(InputError, match=message):
        night(old, "old", [a_tag("a", run="old")], [])
    model, manifest = (Location(str(VERSION_0_1 / name)) for name in ("paper", "manifest.parquet"))
    with pytest.raises(InputError, match=message):
        tag_catalogue(manifest, model, old, TaggingOptions())
    job = Path(__file__).parents[2] / "jobs" / "maintain_tables.py"
    monkeypatch.setattr(sys, "argv", [str(job), "--out", old.uri, "--compact"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(job), run_name="__main__")
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert [delta.table_version(delta.open_table(old, name)) for name in delta.TABLE_SCHEMAS] == versions
    assert not (old / "_lease.json").exists()


def test_only_a_nullable_column_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night(Location(str(tmp_path)), "1", [a_tag("a", run="1")], [])
    upgrade(monkeypatch, GENRE.with_nullable(False))
    with pytest.raises(ValueError, match=r"\['genre'\] of tags are not nullable"):
        delta.open_to_write(Location(str(tmp_path)), "tags", nothing)


def test_the_shards_of_an_older_program_are_committed_with_null(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = stage(old, "new", [a_tag("a", run="new")], TAGS)
    upgrade(monkeypatch, GENRE)
    staged += stage(old, "new", [a_tag("b", run="new") | {"genre": "jazz"}], delta.TABLE_SCHEMAS["tags"])
    planned, none_failed = pa.table({"track_id": ["a", "b"]}), delta.TABLE_SCHEMAS["failures"].empty_table()
    run = commit.verify_and_merge(staged, planned, none_failed, old, run_id="new", model_id="m")
    commit.commit_run(old, run, nothing)
    genres = {row["track_id"]: row["genre"] for row in table_rows(old, "tags") if row["run_id"] == "new"}
    assert genres == {"a": None, "b": "jazz"}
    downgrade(monkeypatch)
    with pytest.raises(VerificationError, match="genre"):
        commit.verify_and_merge(staged, planned, none_failed, old, run_id="new", model_id="m")


def test_a_column_of_another_type_is_not_committed(tmp_path: Path) -> None:
    file = Location(str(tmp_path)) / "shard.parquet"
    rows = pa.Table.from_pylist([a_tag("a")], schema=TAGS)
    file.write_bytes(to_bytes(rows.set_column(4, "n_segments", pa.array([2], pa.int64()))))
    with pytest.raises(VerificationError, match="n_segments: int64"):
        commit.verify_and_merge(
            [(file, 1)], pa.table({"track_id": ["a"]}), delta.TABLE_SCHEMAS["failures"].empty_table(),
            Location(str(tmp_path)), run_id="r", model_id="m",
        )  # fmt: skip


def test_old_tables_are_planned_against(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = pq.read_table(VERSION_0_1 / "manifest.parquet")
    model_id = table_rows(old, "tags")[0]["model_id"]
    upgrade(monkeypatch, GENRE)
    assert len(planning.plan_tracks(manifest, old, model_id, retry_failed=False)) == 0
    newer_night(old)
    assert len(planning.plan_tracks(manifest, old, model_id, retry_failed=False)) == 4, "of the other model now"
