"""Truths about storage, on a disk and on a real S3 server."""

import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mtl_core import storage
from mtl_core.failures import InputError, TrackError
from mtl_core.storage import Location


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
    source = storage.open_track(location.uri)
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


def test_a_large_object_is_read_by_range(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WHOLE_BYTES", 1000)
    data = bytes(range(256)) * 10
    (Location(bucket) / "large").write_bytes(data)
    file = storage.open_track(f"{bucket}/large")
    assert not isinstance(file, bytes | str)
    file.seek(-6, 2)
    assert file.read() == data[-6:]
    file.seek(100)
    assert file.read(50) == data[100:150]
    with pytest.raises(TrackError, match="the manifest has another"):
        storage.open_track(f"{bucket}/large", "another")


def test_a_body_cut_short_is_asked_for_again(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps half of its first answer to itself."""
    bodies = [b"audio", b"audio and more"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "14")
            self.send_header("ETag", '"e"')
            self.end_headers()
            self.wfile.write(bodies.pop(0))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        storage._filesystem.cache_clear()
        assert storage.open_track("s3://bucket/track", "e") == b"audio and more"
        assert not bodies
        server.shutdown()
    storage._filesystem.cache_clear()


def test_changed_audio_is_not_taken_for_the_manifests(root: str) -> None:
    location = Location(root) / "track"
    location.write_bytes(b"one")
    before = storage.content_id(location.filesystem.info(location.path))
    assert storage.open_track(location.uri, before)
    location.write_bytes(b"three")
    assert storage.content_id(location.filesystem.info(location.path)) != before
    with pytest.raises(TrackError) as caught:
        storage.open_track(location.uri, before)
    assert (caught.value.stage, caught.value.error) == ("fetch", "changed")


def test_a_missing_track_is_not_found(root: str) -> None:
    (Location(root) / "folder" / "track").write_bytes(b"x")
    for name in ("nothing", "folder"):
        with pytest.raises(TrackError) as caught:
            storage.open_track(f"{root}/{name}")
        assert caught.value.error == "not_found"


def test_an_unreachable_store_is_named_at_the_door(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.check_reachable(Location("/anything"))
    with pytest.raises(InputError, match="no bucket 'nowhere-to-be-found'"):
        storage.check_reachable(Location("s3://nowhere-to-be-found/key"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage._filesystem.cache_clear()
    with pytest.raises(InputError, match=r"cannot be reached at http://127\.0\.0\.1:9"):
        storage.check_reachable(Location("s3://bucket/key"))
    storage._filesystem.cache_clear()
