"""Reading manifests: what they may look like, and which are refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from mtl_core.dataset import manifest
from mtl_core.errors import InputError
from mtl_core.schema import MANIFEST
from mtl_core.storage.location import Location


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"track_id": ["a"]}, "no column 'uri'"),
        ({"uri": ["/a"]}, "no column 'track_id'"),
        ({"track_id": ["a", "a"], "uri": ["/a", "/b"]}, "1 track_ids occur more than once, e.g. 'a'"),
        ({"track_id": ["a", None], "uri": ["/a", "/b"]}, "1 rows without track_id"),
        ({"track_id": ["a", "b"], "uri": ["/a", ""]}, "1 rows without uri"),
        ({"track_id": ["a"], "uri": ["relative/path"]}, "uri 'relative/path': allowed"),
        ({"track_id": ["a"], "uri": ["gs://b/c"]}, "uri 'gs://b/c': allowed"),
        ({"track_id": [["a"]], "uri": ["/a"]}, "column 'track_id' is list"),
        ({"track_id": ["a"], "uri": ["/a"], "size_bytes": ["many"]}, "column 'size_bytes' is string"),
        ({"track_id": ["a"], "uri": ["/a"], "size_bytes": [1.5]}, "1.5"),
        ({"track_id": ["a"], "uri": ["/a"], "size_bytes": [float("nan")]}, "cannot be read as a manifest"),
        ({"track_id": ["a"], "uri": ["/a"], "size_bytes": [1e30]}, "cannot be read as a manifest"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=message):
        manifest.scan(Location(str(tmp_path / "m.parquet")))


def test_a_manifest_may_be_a_folder_of_files_with_only_the_required_columns(root: str) -> None:
    folder = Location(root)
    for name, column in (("a", pa.array(["a"]).dictionary_encode()), ("b", pa.array(["b"], pa.large_string()))):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"track_id": column, "uri": pa.array(["s3://x/y"])}), buffer)
        (folder / f"{name}.parquet").write_bytes(buffer.getvalue().to_pybytes())
    table = manifest.read(folder)
    assert table.schema == MANIFEST
    assert table["track_id"].to_pylist() == ["a", "b"]
    assert table["artist"].null_count == 2


def test_what_is_not_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("text.parquet", "cannot be read as a manifest"),
        ("folder", "without Parquet"),
        ("gone", "nothing is there"),
    ):
        with pytest.raises(InputError, match=message):
            manifest.read(Location(str(tmp_path / name)))


def test_sizes_may_be_whole_floats(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"track_id": ["a", "b"], "uri": ["/a", "/b"], "size_bytes": [3.0, None]}), tmp_path / "m.parquet"
    )
    assert manifest.read(Location(str(tmp_path / "m.parquet")))["size_bytes"].to_pylist() == [3, None]


def test_a_manifest_may_be_hive_partitions(root: str) -> None:
    folder = Location(root) / "language=above" / "m"
    for path, ids in (("language=xx/day=1/a.parquet", ["a"]), ("language=y%20y/day=2/b.parquet", ["b", "c"])):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"track_id": ids, "uri": ["s3://x/y"] * len(ids)}), buffer)
        (folder / path).write_bytes(buffer.getvalue().to_pybytes())
    (folder / "_temporary" / "b.parquet").write_bytes(b"no parquet")
    rows = {row["track_id"]: (row["language"], row["day"]) for row in manifest.read(folder).to_pylist()}
    assert rows == {"a": ("xx", "1"), "b": ("y y", "2"), "c": ("y y", "2")}
    assert manifest.delta_version(folder) is None


@pytest.mark.parametrize("partitions", [None, ["language"]])
def test_a_manifest_may_be_a_delta_table_of_which_deleted_rows_do_not_come_back(
    tmp_path: Path, partitions: list[str] | None
) -> None:
    rows = {"track_id": ["a", "b"], "uri": ["/a", "/b"], "language": ["xx", "yy"], "mood": ["calm", "wild"]}
    write_deltalake(tmp_path / "m", pa.table(rows), partition_by=partitions)
    DeltaTable(tmp_path / "m").delete("track_id = 'a'")
    at = Location(str(tmp_path / "m"))
    assert manifest.delta_version(at) == 1
    (row,) = manifest.read(at).to_pylist()
    assert (row["track_id"], row["language"], row["mood"], row["artist"]) == ("b", "yy", "wild", None)
    assert sorted(manifest.scan(at, 0).to_table()["track_id"].to_pylist()) == ["a", "b"]


def test_a_delta_table_that_deltalake_does_not_read_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "m", pa.table({"track_id": ["a"], "uri": ["/a"]}))
    log = tmp_path / "m/_delta_log/00000000000000000000.json"
    log.write_text(log.read_text()[:-40])
    with pytest.raises(InputError, match="cannot be read as a manifest"):
        manifest.scan(Location(str(tmp_path / "m")))


def test_a_folder_s_key_that_is_also_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "language=de").mkdir()
    pq.write_table(pa.table({"track_id": ["a"], "uri": ["/a"], "language": ["fr"]}), tmp_path / "language=de/a.parquet")
    with pytest.raises(InputError, match="'language' is a column and the key of a folder"):
        manifest.scan(Location(str(tmp_path)))
