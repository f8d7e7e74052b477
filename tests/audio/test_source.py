"""A track's audio is opened as the manifest describes it, on a disk and on a real S3 server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mtl_core.audio import source
from mtl_core.audio.source import open_track
from mtl_core.errors import TrackError
from mtl_core.storage import location as storage
from mtl_core.storage.location import Location


def test_a_large_object_is_read_by_range(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "WHOLE_BYTES", 1000)
    data = bytes(range(256)) * 10
    (Location(bucket) / "large").write_bytes(data)
    file = open_track(f"{bucket}/large")
    assert not isinstance(file, bytes | str)
    file.seek(-6, 2)
    assert file.read() == data[-6:]
    file.seek(100)
    assert file.read(50) == data[100:150]
    with pytest.raises(TrackError, match="the manifest has another"):
        open_track(f"{bucket}/large", "another")


def test_a_body_that_was_cut_short_is_requested_again(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends half of its first body."""
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
        storage.open_filesystem.cache_clear()
        assert open_track("s3://bucket/track", "e") == b"audio and more"
        assert not bodies
        server.shutdown()
    storage.open_filesystem.cache_clear()


def test_audio_that_has_changed_since_the_manifest_fails(root: str) -> None:
    location = Location(root) / "track"
    location.write_bytes(b"one")
    before = storage.content_id(location.filesystem.info(location.path))
    assert open_track(location.uri, before)
    location.write_bytes(b"three")
    assert storage.content_id(location.filesystem.info(location.path)) != before
    with pytest.raises(TrackError) as caught:
        open_track(location.uri, before)
    assert (caught.value.stage, caught.value.error) == ("fetch", "changed")


def test_a_missing_track_is_not_found(root: str) -> None:
    (Location(root) / "folder" / "track").write_bytes(b"x")
    for name in ("nothing", "folder"):
        with pytest.raises(TrackError) as caught:
            open_track(f"{root}/{name}")
        assert caught.value.error == "not_found"
