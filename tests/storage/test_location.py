"""Truths about storage, on a disk and on a real S3 server."""

import pickle
from pathlib import Path

import pytest

from mtl_core.audio.source import open_track
from mtl_core.errors import InputError
from mtl_core.storage import checks, location
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
def test_names_are_taken_as_they_are(root: str, name: str) -> None:
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


def test_files_are_those_directly_inside_and_not_hidden(root: str) -> None:
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


def test_an_unreachable_store_is_named_at_the_door(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.check_reachable(Location("/anything"))
    with pytest.raises(InputError, match="no bucket 'nowhere-to-be-found'"):
        checks.check_reachable(Location("s3://nowhere-to-be-found/key"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    location.open_filesystem.cache_clear()
    with pytest.raises(InputError, match=r"cannot be reached at http://127\.0\.0\.1:9"):
        checks.check_reachable(Location("s3://bucket/key"))
    location.open_filesystem.cache_clear()
