"""A track's audio is opened as the manifest describes it, on a disk and on a real S3 server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from builders.identities import forget_identity
from builders.sound_files import by_ffmpeg, encoded, song

from mtl_core.audio import source
from mtl_core.audio.front_end import FrontEnd
from mtl_core.audio.source import fetched_bytes, open_track
from mtl_core.audio.track_reader import OpenTrack, Track, TrackReader
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
    assert 56 <= fetched_bytes(file) <= 2 * len(data)
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
        forget_identity()
        assert open_track("s3://bucket/track", "e") == b"audio and more"
        assert not bodies
        server.shutdown()
    forget_identity()


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


@pytest.mark.parametrize(("name", "container"), [("song.WAV", "WAV"), ("song.aif", "AIFF")])
def test_of_a_large_uncompressed_file_only_what_is_read_is_fetched(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, container: str
) -> None:
    """A song of 3 minutes: the first four segments are an eighth of its bytes, and equal those of the local file."""
    data = encoded(np.tile(song(30), (6, 1)), container, "PCM_16")
    location = Location(bucket) / name
    location.write_bytes(data)
    row = {"track_id": "a", "uri": location.uri, "size_bytes": len(data)}
    requests: list[int] = []
    get_range = source._get_range
    monkeypatch.setattr(
        source, "_get_range", lambda at, first, n, same: requests.append(n) or get_range(at, first, n, same)
    )
    by_range = TrackReader(FrontEnd(sampling="spread", segments=32), reads_first=4)
    (track,) = by_range.open([row])
    assert isinstance(track, OpenTrack)
    rounds = track.read_rounds()
    numbers, segments = next(rounds)
    # The head, four segments and the end; ffmpeg probes AIFF beyond the head.
    assert len(requests) == (6 if container == "WAV" else 7)
    assert sum(requests) < len(data) / 8
    (whole,) = TrackReader(FrontEnd(sampling="spread", segments=32)).read([{"track_id": "a", "bytes": data}])
    assert isinstance(whole, Track)
    assert (segments.mel_STF == whole.segments.mel_STF[numbers]).all()
    for numbers, segments in rounds:
        assert (segments.mel_STF == whole.segments.mel_STF[numbers]).all()
    assert sum(requests) < 0.85 * len(data)


def test_of_a_large_flac_file_only_what_is_read_first_is_fetched(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round is fetched by range, the next one needs the whole file. The mels equal those of the whole file.

    Half of the file is quiet and small, so no position is that of the mean byte rate. The channels cancel each other
    out where the first segment of the first round lies, and not where the first one of the second round does.
    """
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (240 * 44_100, 2)).astype(np.float32)
    samples[: len(samples) // 2] *= 0.02
    cancelled = slice(28 * 44_100, 40 * 44_100)
    samples[cancelled, 1] = -samples[cancelled, 0]
    data = by_ffmpeg(samples, "flac", "flac")
    location = Location(bucket) / "song.flac"
    location.write_bytes(data)
    requests: list[dict[str, Any]] = []
    get_object = source._get_object
    monkeypatch.setattr(
        source, "_get_object", lambda *needs, **request: requests.append(request) or get_object(*needs, **request)
    )
    by_range = TrackReader(FrontEnd(sampling="spread", segments=16), reads_first=4)
    (track,) = by_range.open([{"track_id": "a", "uri": location.uri, "size_bytes": len(data)}])
    (expected,) = TrackReader(FrontEnd(sampling="spread", segments=16)).open([{"track_id": "a", "bytes": data}])
    assert isinstance(track, OpenTrack) and isinstance(expected, OpenTrack) and track.duration_s == 240
    for number, (read, of_whole) in enumerate(zip(track.read_rounds(), expected.read_rounds(), strict=True)):
        assert (read[0] == of_whole[0]).all() and (read[1].mel_STF == of_whole[1].mel_STF).all()
        if number == 0:
            n_ranges = len(requests)
            assert n_ranges <= 2 + 5 + 2 * 4 and all("Range" in request for request in requests)
            assert fetched_bytes(by_range._source) < len(data) / 3
    assert ["Range" in request for request in requests[n_ranges:]] == [False], "one GET for all later rounds"
    assert by_range._source == data


def test_an_object_that_changes_between_two_ranges_has_changed(bucket: str) -> None:
    data = encoded(np.tile(song(30), (4, 1)), "WAV", "PCM_16")
    location = Location(bucket) / "song.wav"
    location.write_bytes(data)
    reader = TrackReader(FrontEnd(sampling="spread", segments=32), reads_first=4)
    (track,) = reader.open([{"track_id": "a", "uri": location.uri, "size_bytes": len(data)}])
    assert isinstance(track, OpenTrack)
    rounds = track.read_rounds()
    next(rounds)
    location.write_bytes(data[::-1])
    with pytest.raises(TrackError) as error:
        list(rounds)
    assert (error.value.stage, error.value.error) == ("fetch", "changed")


@pytest.mark.parametrize(("name", "segments"), [("song.flac", 4), ("song.wav", 32), ("song.wav", None)])
def test_an_object_of_which_much_is_read_is_fetched_at_once(bucket: str, name: str, segments: int | None) -> None:
    data = encoded(np.tile(song(30), (1, 1)), "WAV", "PCM_16")
    (Location(bucket) / name).write_bytes(data)
    reader = TrackReader(FrontEnd(sampling="spread", segments=32), reads_first=segments)
    (track,) = reader.read([{"track_id": "a", "uri": f"{bucket}/{name}", "size_bytes": len(data)}])
    assert isinstance(track, Track) and isinstance(reader._source, bytes)
