"""The plan has the tracks that are still to be tagged."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from nights import a_failure, a_tag, manifest, night

from mtl_core.dataset import manifest as manifests
from mtl_core.storage import sql
from mtl_core.storage.location import Location
from mtl_core.storage.row_file import RowFile
from mtl_core.tables import planning
from mtl_core.tables.data_files import DataFile


def ids_of(tracks: RowFile) -> str:
    return "".join(tracks.to_table()["track_id"].to_pylist())


def test_the_plan_has_the_tracks_without_tags_or_permanent_failure(root: str) -> None:
    out = Location(root)

    def planned(tracks: pa.Table, model: str = "m", retry_failed: bool = False) -> str:
        return ids_of(planning.plan_tracks(tracks, out, model, retry_failed=retry_failed))

    assert planned(manifest("dcba")) == "abcd"
    night(out, "1", [a_tag("a"), a_tag("gone")], [a_failure("b"), a_failure("c", permanent=False, attempts=2)])
    plan = planning.plan_tracks(manifest("abcd"), out, "m", retry_failed=False)
    assert plan.schema.names == ["track_id", "uri", "content_id", "size_bytes", "attempts", "first_run_id"]
    assert [(row["track_id"], row["attempts"]) for row in plan.to_table().to_pylist()] == [("c", 2), ("d", 0)]
    assert planned(manifest("abcd"), retry_failed=True) == "bcd"
    assert planned(manifest("abcd"), model="other") == "abcd"
    assert planned(manifest("ab", content="changed")) == "ab"


def test_two_null_content_ids_are_equal(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    night(out, "1", [a_tag("a", content=None)], [])
    without_content_ids = manifest("a").set_column(2, "content_id", pa.nulls(1, pa.string()))
    assert not len(planning.plan_tracks(without_content_ids, out, "m", retry_failed=False))


def test_a_manifest_is_planned_from_its_file(root: str) -> None:
    out = Location(root)
    manifests.write(manifest("dcba"), out / "manifest.parquet")
    night(out, "1", [a_tag("b")], [])
    plan = planning.plan_tracks(manifests.scan(out / "manifest.parquet"), out, "m", retry_failed=False).slice(0, 2)
    assert ids_of(plan) == "ac"


def of_trunk(track_id: str, trunk: str | None, **columns: str) -> dict:
    return a_tag(track_id, **columns) | {"trunk_id": trunk}


def test_the_embeddings_of_a_trunk_are_found_in_the_files_of_the_table(root: str) -> None:
    out = Location(root)

    def located(ids: str, trunk: str = "t", model: str = "new", content: str = "c") -> tuple[list[dict], str]:
        tracks = planning.plan_tracks(manifest(ids, content), out, model, retry_failed=False)
        in_table, others = planning.find_embeddings(tracks, out, trunk_id=trunk, model_id=model)
        assert others.schema == tracks.schema
        assert in_table.schema.names[: len(tracks.schema)] == tracks.schema.names
        return in_table.to_table().to_pylist(), ids_of(others)

    assert located("a") == ([], "a"), "there is no table"
    night(out, "1", [of_trunk(i, "t") for i in "adb"] + [of_trunk("c", None), of_trunk("e", "u")], [])
    night(out, "2", [of_trunk("f", "t", model="new"), of_trunk("g", "t", content=None)], [])
    rows, others = located("hgfedcba")
    assert [(row["track_id"], row["row"]) for row in rows] == [("a", 0), ("d", 1), ("b", 2)], "as in the file"
    assert len({row["file"] for row in rows}) == 1
    assert others == "cegh", "f is tagged by the new model"
    rows, others = located("ae", trunk="u")
    assert [row["track_id"] for row in rows] == ["e"] and others == "a"
    assert located("ab", content="changed") == ([], "ab")
    rows, others = located("abf", model="newer")
    assert sorted(row["track_id"] for row in rows) == ["a", "b", "f"] and others == ""


def test_refused_tracks_join_those_that_are_read(tmp_path: Path) -> None:
    tracks = planning.plan_tracks(manifest("abcd"), Location(str(tmp_path)), "m", retry_failed=False)
    with_places = tracks.slice(0, 2).to_table().append_column("row", pa.array([7, 8], pa.int32()))
    refused = RowFile.write(with_places.to_batches(), with_places.schema)
    merged = planning.merge_tracks(tracks.slice(2), refused)
    assert merged.schema == tracks.schema
    assert merged.to_table().to_pylist() == tracks.to_table().to_pylist()
    assert ids_of(planning.merge_tracks(tracks.slice(0, 0), refused)) == "ab"
    assert ids_of(planning.merge_tracks(tracks.slice(2), refused.slice(0, 0))) == "cd"


def made_up(n: int) -> pa.Table:
    """Tracks as a manifest has them."""
    texts = [f"label-{i // 2500:03}/artist-{i // 5:06}/album-{i:07}/{i:09}.flac" for i in range(n)]
    contents = pa.array([f"{i * 7919 % 1_000_003:032}" for i in range(n)], pa.string())
    uris = pa.array([f"/mnt/the-catalogue/masters/{text}" for text in texts], pa.string())
    return pa.table(
        {"track_id": texts, "uri": uris, "content_id": contents, "size_bytes": pa.array(range(n), pa.int64())}
    )


@pytest.mark.parametrize("n_failed", [0, 30_000])
@pytest.mark.parametrize("n_tagged", [0, 60_000])
@pytest.mark.parametrize("n", [60_000, 90_000, 120_000, 180_000, 240_000])
def test_a_night_of_any_size_is_planned(
    n: int, n_tagged: int, n_failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of the tracks and of the memory with which 1.5 to 2 million tracks were too many, and 3 were not."""
    monkeypatch.setattr(sql, "MEMORY", "40MiB")
    tracks = made_up(n)

    def stored(root: Location, name: str, model_id: str, columns: list[str]) -> pa.RecordBatchReader:
        rows = tracks.slice(0, n_tagged) if name == "tags" else tracks.slice(n - n_failed)
        more = {"attempts": pa.array([2], pa.int32()), "permanent": [False], "run_id": ["r"], "first_run_id": ["q"]}
        for column, values in more.items():
            rows = rows.append_column(column, pa.repeat(values[0], len(rows)))
        return sql.scan_columns(rows, columns)

    monkeypatch.setattr(planning, "_rows_of_model", stored)
    planned = planning.plan_tracks(tracks, Location(str(tmp_path)), "m", retry_failed=False)
    expected = sorted(tracks["track_id"].to_pylist()[min(n_tagged, n) :])
    assert planned.to_table()["track_id"].to_pylist() == expected


def a_file(path: str) -> DataFile:
    return DataFile(path=path, size_bytes=1, n_rows=1, min_values={}, max_values={}, null_counts={})


@pytest.mark.parametrize("share_in_table", [0.1, 0.5, 1])
@pytest.mark.parametrize("n", [60_000, 140_000, 200_000])
def test_embeddings_of_any_number_are_found(
    n: int, share_in_table: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "MEMORY", "40MiB")
    tracks, per_file = made_up(n), 20_000
    planned = tracks.append_column("attempts", pa.repeat(0, n)).append_column("first_run_id", pa.nulls(n, pa.string()))
    rows = tracks.slice(0, int(share_in_table * n))
    files = [f"part-{number:050}.parquet" for number in range(-(-len(rows) // per_file))]

    def rows_of_trunk(*_: object) -> Iterator[pa.RecordBatch]:
        for number in range(len(files)):
            of_file = rows.slice(number * per_file, per_file).combine_chunks()
            ids, contents = (of_file[name].chunk(0) for name in ("track_id", "content_id"))
            row = pa.array(range(len(of_file)), pa.int32())
            file = pa.repeat(pa.scalar(number, pa.int32()), len(of_file))
            yield pa.record_batch([ids, contents, file, row], planning._EMBEDDING_ROWS)

    monkeypatch.setattr(planning, "_rows_of_trunk", rows_of_trunk)
    monkeypatch.setattr(planning, "open_table", lambda *_: True)
    monkeypatch.setattr(planning, "active_files", lambda _: [a_file(path) for path in files])
    shuffled = planned.take(pa.array(np.random.default_rng(0).permutation(n)))
    of_file = RowFile.write(shuffled.to_batches(16_384), planned.schema)
    in_table, others = planning.find_embeddings(of_file, Location(str(tmp_path)), trunk_id="t", model_id="m")
    found = in_table.to_table()
    assert found.select(planned.column_names) == rows.append_column("attempts", pa.repeat(0, len(rows))).append_column(
        "first_run_id", pa.nulls(len(rows), pa.string())
    )
    assert found["file"].to_pylist() == [files[i // per_file] for i in range(len(rows))]
    assert found["row"].to_pylist() == [i % per_file for i in range(len(rows))]
    assert ids_of(others) == "".join(sorted(tracks["track_id"].to_pylist()[len(rows) :]))
