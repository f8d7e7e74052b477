"""A store that fails now and then: downloads and commits succeed, and a request that was refused is not repeated."""

import time

import pytest
from builders.identities import forget_identity
from builders.models import save
from faulty_proxy import Proxy, proxy_of
from nightly import JOB, rows, run, small_artifact, write_track

from mtl_core.audio.decoding.decoder_process import DECODER
from mtl_core.audio.source import open_track
from mtl_core.errors import TrackError
from mtl_core.pipelines.build_manifest import build_manifest
from mtl_core.storage.location import Location, content_id


@pytest.mark.slow
def test_a_run_through_a_bad_network_is_exact(bucket: str, s3_server: str) -> None:
    at, n = Location(bucket), 300
    for number in range(n):
        write_track(at / "catalogue" / f"{number:03}.wav", number)
    build_manifest(at / "catalogue", None, at / "m.parquet")
    save(small_artifact(), at / "model")
    with proxy_of(s3_server, unavailable=0.05, reset=0.02, delayed=0.05, delay_s=2.0, seed=1) as proxy:
        command = [str(JOB), "--manifest", f"{at}/m.parquet", "--model", f"{at}/model", "--out", f"{at}/out",
                   "--num-workers", "2"]  # fmt: skip
        start_s = time.monotonic()
        env = {"AWS_ENDPOINT_URL": proxy.endpoint}
        ended = run("never", "driver", command, env, 400, DECODER)
        print(f"{time.monotonic() - start_s:.1f} s, {proxy.requests.total()} requests, {dict(proxy.faults)}")
        print(ended.stdout, ended.stderr)
        assert ended.returncode == 0, ended.stderr
    assert f"{n} planned = {n} tagged + 0 failed" in ended.stdout
    assert [row["track_id"] for row in rows(at / "out", "tags")] == [f"{number:03}.wav" for number in range(n)]


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch):
    with proxy_of(s3_server) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        forget_identity()
        yield running
    forget_identity()


@pytest.mark.parametrize(("status", "error"), [(403, "forbidden"), (404, "not_found")])
def test_a_refused_request_is_not_repeated(bucket: str, proxy: Proxy, status: int, error: str) -> None:
    track = Location(bucket) / "track.wav"
    write_track(track, 0)
    proxy.requests.clear()
    proxy.forced["track.wav"] = [status]
    start_s = time.monotonic()
    with pytest.raises(TrackError) as caught:
        open_track(track.uri)
    assert caught.value.error == error
    assert proxy.requests == {("GET", f"/{track.path}"): 1}
    assert time.monotonic() - start_s < 2


def test_a_track_is_downloaded_in_one_request(bucket: str, proxy: Proxy) -> None:
    track = Location(bucket) / "track.wav"
    write_track(track, 0)
    version = content_id(track.filesystem.info(track.path))
    proxy.requests.clear()
    assert isinstance(open_track(track.uri, version), bytes)
    assert proxy.requests == {("GET", f"/{track.path}"): 1}


@pytest.mark.parametrize("status", [500, 503])
def test_a_failed_request_is_repeated(bucket: str, proxy: Proxy, status: int) -> None:
    track = Location(bucket) / "track.wav"
    write_track(track, 0)
    proxy.requests.clear()
    open_track(track.uri)
    n_requests = proxy.requests.total()
    proxy.requests.clear()
    proxy.forced["track.wav"] = [status, status, 200]
    assert isinstance(open_track(track.uri), bytes)
    assert proxy.requests.total() == n_requests + 2, proxy.requests
