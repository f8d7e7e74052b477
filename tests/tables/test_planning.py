"""The plan has the tracks that are still to be tagged."""

from pathlib import Path

import pyarrow as pa
from nights import a_failure, a_tag, manifest, night

from mtl_core.dataset import manifest as manifests
from mtl_core.storage.location import Location
from mtl_core.tables import planning


def test_the_plan_has_the_tracks_without_tags_or_permanent_failure(root: str) -> None:
    out = Location(root)

    def planned(tracks: pa.Table, model: str = "m", retry_failed: bool = False) -> str:
        return "".join(planning.plan_tracks(tracks, out, model, retry_failed=retry_failed)["track_id"].to_pylist())

    assert planned(manifest("dcba")) == "abcd"
    night(out, "1", [a_tag("a"), a_tag("gone")], [a_failure("b"), a_failure("c", permanent=False, attempts=2)])
    plan = planning.plan_tracks(manifest("abcd"), out, "m", retry_failed=False)
    assert plan.schema.names == ["track_id", "uri", "content_id", "size_bytes", "attempts", "first_run_id"]
    assert list(zip(*plan.select(["track_id", "attempts"]).to_pydict().values(), strict=True)) == [("c", 2), ("d", 0)]
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
    assert plan["track_id"].to_pylist() == ["a", "c"]


def of_trunk(track_id: str, trunk: str | None, **columns: str) -> dict:
    return a_tag(track_id, **columns) | {"trunk_id": trunk}


def test_the_embeddings_of_a_trunk_are_found_in_the_files_of_the_table(root: str) -> None:
    out = Location(root)

    def found(ids: str, trunk: str = "t", model: str = "new", content: str = "c") -> list[tuple[str, str, int]]:
        tracks = planning.plan_tracks(manifest(ids, content), out, model, retry_failed=False)
        table = planning.find_embeddings(tracks, out, trunk_id=trunk, model_id=model)
        assert table.schema.names == [*tracks.schema.names, "file", "row"]
        return list(zip(*table.select(["track_id", "file", "row"]).to_pydict().values(), strict=True))

    assert found("a") == [], "there is no table"
    night(out, "1", [of_trunk(i, "t") for i in "adb"] + [of_trunk("c", None), of_trunk("e", "u")], [])
    night(out, "2", [of_trunk("f", "t", model="new"), of_trunk("g", "t", content=None)], [])
    rows = found("abcdefgh")
    assert [(track, row) for track, _, row in rows] == [("a", 0), ("d", 1), ("b", 2)]
    assert len({file for _, file, _ in rows}) == 1
    assert [track for track, *_ in found("ae", trunk="u")] == ["e"]
    assert found("ab", content="changed") == []
    assert sorted(track for track, *_ in found("abf", model="newer")) == ["a", "b", "f"]


def test_tracks_that_are_done_leave_the_plan_and_refused_ones_stay(tmp_path: Path) -> None:
    tracks = planning.plan_tracks(manifest("abcd"), Location(str(tmp_path)), "m", retry_failed=False)
    ids = pa.chunked_array([pa.array(["c", "a", "b"])])
    left = planning.without_tracks(tracks, ids, but=pa.chunked_array([pa.array(["b"])]))
    assert left.schema == tracks.schema
    assert left["track_id"].to_pylist() == ["b", "d"]
