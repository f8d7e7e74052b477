"""Reading, writing and listing, on a disk and on an S3 server; checks before a job starts."""

import json
import pickle
from pathlib import Path

import pytest

from mtl_core.audio.source import open_track
from mtl_core.storage.location import Location


def test_a_uri_has_one_normal_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        Location("a/b").uri == Location(f"file://{tmp_path}/a/b").uri == Location("a//c/../b/").uri == f"{tmp_path}/a/b"
    )
    assert Location("s3://bucket/key/").uri == "s3://bucket/key"
    assert (Location("s3://bucket") / "a" / "b").uri == "s3://bucket/a/b"


@pytest.mark.parametrize("uri", ["", "s3://", "gs://bucket/key", "http://host/file"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Location(uri)


@pytest.mark.parametrize(
    "name", ["plain.mp3", "a b%20c.mp3", "ünïcode 歌.mp3", "what?*[x]#1.mp3", "a::b.mp3", "+&=;.mp3"]
)
def test_names_are_used_as_they_are(root: str, name: str) -> None:
    location = Location(root) / "folder" / name
    assert not location.exists()
    location.write_bytes(b"one")
    location.write_bytes(b"two!")
    assert location.read_bytes() == b"two!"
    assert [file.name for file in (Location(root) / "folder").files()] == [name]
    assert [path for path, _ in Location(root).walk()] == [f"folder/{name}"]
    source = open_track(location.uri)
    assert (source if isinstance(source, bytes) else Path(str(source)).read_bytes()) == b"two!"
    assert pickle.loads(pickle.dumps(location)) == location


def test_files_lists_visible_files_directly_inside(root: str) -> None:
    top = Location(root)
    for name in ("b.parquet", "a.parquet", "c.json", "_hidden.parquet", ".draft.parquet", "deeper/d.parquet"):
        (top / name).write_bytes(b"x")
    assert [file.name for file in top.files(".parquet")] == ["a.parquet", "b.parquet"]
    assert (top / "nowhere").files() == []
    assert list((top / "nowhere").walk()) == []
    (top / "deeper").delete_tree()
    (top / "nowhere").delete_tree()
    (top / "c.json").delete()
    (top / "c.json").delete()
    assert [path for path, _ in top.walk()] == [".draft.parquet", "_hidden.parquet", "a.parquet", "b.parquet"]


def test_json_is_indented_and_refuses_nan(root: str) -> None:
    file = Location(root) / "values.json"
    file.write_json({"a": [1], "b": None})
    assert file.read_bytes() == b'{\n "a": [\n  1\n ],\n "b": null\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        file.write_json({"a": float("nan")})
    assert json.loads(file.read_bytes()) == {"a": [1], "b": None}


def test_a_large_file_appears_when_it_is_complete(root: str) -> None:
    file = Location(root) / "folder" / "large"
    with pytest.raises(OSError, match="full"), file.write_via() as path:
        path.write_bytes(b"half")
        raise OSError("the disk is full")
    assert not file.exists() and (file.filesystem.protocol == ("s3", "s3a") or not any(Path(root).rglob("*.tmp")))
    with file.write_via() as path:
        path.write_bytes(b"complete")
        assert not file.exists()
    assert file.read_bytes() == b"complete" and file.put_if_absent(b"another") is False


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        ("gs://bucket/key", "Google Cloud Storage"),
        ("az://container/key", "Azure Blob Storage"),
        ("ABFSS://c@a.dfs.core.windows.net/key", "Azure Blob Storage"),
        ("s3a://bucket/key", "another spelling of s3://"),
    ],
)
def test_other_stores_are_refused_by_name(uri: str, store: str) -> None:
    with pytest.raises(ValueError, match=f"'{uri}' is {store}: allowed are a path, file:///path and s3://bucket/key"):
        Location(uri)


def test_bucket_key_and_prefix_of_a_location_on_s3() -> None:
    for uri, expected in (
        ("s3://b", ("b", "", "")),
        ("s3://b/", ("b", "", "")),
        ("s3://b/a folder/c", ("b", "a folder/c", "a folder/c/")),
    ):
        location = Location(uri)
        assert (location.bucket, location.key, location.prefix) == expected
