"""Listing objects: nothing is left out or listed twice, whatever the keys are like, and errors end it."""

import bisect
import collections
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

import pytest

from mtl_core.storage.location import Location
from mtl_core.storage.object_listing import count_spans, find_middle, list_objects

LAYOUTS = {
    "folders": [f"artist-{n // 10:05d}/{n % 10}.mp3" for n in range(1000)],
    "flat": [f"{n * 2654435761 % 2**32:08x}.mp3" for n in range(1000)],
    "lopsided": [f"a{n:04d}/x.mp3" for n in range(50)]
    + [f"main/{n:06d}.mp3" for n in range(900)]
    + [f"z{n:04d}/x.mp3" for n in range(50)],
    "scripts": [f"{name}/{n:03d} é+%.mp3" for name in ("Björk", "Кино", "周杰倫", "🎵", "~") for n in range(200)],
}


class Bucket(ThreadingHTTPServer):
    """A store that lists keys as S3 does, and counts requests."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = sorted(keys)  # in the order of their UTF-8 bytes
        self.n_requests = itertools.count()
        self.answers: dict[int, tuple[int, bytes]] = {}  # number of a request -> its status and body instead
        self.ignores_start = False


class _Handler(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        number = next(self.server.n_requests)
        status, body = self.server.answers.get(number, (200, b""))
        if not body:
            start = query.get("continuation-token", query.get("start-after", ""))
            prefix = query.get("prefix", "")
            first = 0 if self.server.ignores_start else bisect.bisect_right(self.server.keys, max(start, prefix))
            after = [key for key in self.server.keys[first:] if key.startswith(prefix)]
            page = after[: int(query["max-keys"])]
            more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if page != after else ""
            entries = "".join(
                f"<Contents><Key>{quote(key)}</Key><ETag>&quot;{len(key)}&quot;</ETag><Size>{len(key)}</Size></Contents>"
                for key in page
            )
            body = (
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>'
                f"{more}{entries}</ListBucketResult>"
            ).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(no_identity: pytest.MonkeyPatch):
    servers = []

    def start(keys: list[str]) -> Bucket:
        server = Bucket(keys)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        no_identity.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            no_identity.setenv(name, "stub")
        no_identity.setenv("AWS_DEFAULT_REGION", "us-east-1")
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def paths(uri: str, keys_per_page: int = 1000) -> list[str]:
    return [path for batch in list_objects(Location(uri), keys_per_page) for path in batch["path"].to_pylist()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_key_is_listed_once_in_few_more_requests_than_there_are_pages(serve, layout: str) -> None:
    keys = LAYOUTS[layout]
    server = serve([f"music/{key}" for key in keys] + ["music", "music.txt", "musical/x.mp3", "a", "z"])
    assert collections.Counter(paths("s3://bucket/music", 20)) == collections.Counter(keys)
    n_pages = len(keys) / 20
    assert next(server.n_requests) < 5 * n_pages


def test_keys_that_share_hundreds_of_characters_are_listed(serve) -> None:
    keys = [f"{'folder/' * 60}{n:03d}.mp3" for n in range(200)] + [f"z/{n}.mp3" for n in range(10)]
    serve(keys)
    assert collections.Counter(paths("s3://bucket", 20)) == collections.Counter(keys)


def test_a_listing_of_one_page_is_one_request(serve) -> None:
    server = serve(["a/1.mp3", "b.mp3"])
    assert paths("s3://bucket") == ["a/1.mp3", "b.mp3"]
    assert next(server.n_requests) == 1


def test_rows_have_the_etag_and_the_size_and_folders_are_left_out(serve) -> None:
    serve(["m/", "m/a/", "m/a//b&<c>.mp3"])
    [batch] = list_objects(Location("s3://bucket/m"))
    assert batch.to_pylist() == [{"path": "a//b&<c>.mp3", "content_id": "14", "size_bytes": 14}]


def test_a_store_may_break_lines_between_elements(serve) -> None:
    bucket = serve([])
    bucket.answers[0] = (
        200,
        b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult>
  <Contents>
    <Key>music/b.mp3</Key>
    <ETag>&quot;1&quot;</ETag>
    <Owner><ID>x</ID></Owner>
    <Size>3</Size>
  </Contents>
</ListBucketResult>""",
    )
    (page,) = list_objects(Location("s3://bucket/music"))
    assert page.to_pylist() == [{"path": "b.mp3", "content_id": "1", "size_bytes": 3}]


def test_a_request_that_fails_or_is_cut_off_is_made_again(serve) -> None:
    server = serve(LAYOUTS["folders"])
    error = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
    server.answers = {1: (503, error), 2: (200, error), 3: (200, b"<ListBucketResult><Contents>")}
    assert sorted(paths("s3://bucket", 500)) == LAYOUTS["folders"]


@pytest.mark.parametrize(("status", "kind"), [(403, PermissionError), (404, FileNotFoundError)])
def test_an_error_in_any_page_ends_the_listing(serve, status: int, kind: type[OSError]) -> None:
    code = {403: b"AccessDenied", 404: b"NoSuchBucket"}[status]
    serve(LAYOUTS["flat"]).answers = {20: (status, b"<Error><Code>" + code + b"</Code><Message>none</Message></Error>")}
    before = threading.active_count()
    with pytest.raises(kind, match="none"):
        paths("s3://bucket", 20)
    for thread in threading.enumerate():
        if thread.name.startswith("list-"):
            thread.join(10)
    assert threading.active_count() <= before + 40  # the stub's own, one a connection


def test_a_store_that_does_not_start_where_it_is_asked_to_is_refused(serve) -> None:
    serve(LAYOUTS["flat"]).ignores_start = True
    with pytest.raises(OSError, match="are not in order"):
        paths("s3://bucket", 20)


def test_a_reader_that_stops_ends_the_threads(serve) -> None:
    serve(LAYOUTS["flat"])
    batches = list_objects(Location("s3://bucket"), 10)
    next(batches)
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("list-"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("low", "high"),
    [("a", "b"), ("", "a"), ("a/1", "a/1/x"), ("Кино", "Кит"), ("a", "\U0010ffff"), ("abc/99.mp3", "abd")],
)
def test_the_middle_lies_between_two_texts(low: str, high: str) -> None:
    middle = find_middle(low, high, sorted(set("abcde/.0123456789mp") | set(low) | set(high)))
    assert middle is not None and low < middle < high


def test_there_is_no_middle_of_neighbours() -> None:
    assert find_middle("a", "a0", list("0a")) is None


def test_spans_are_counted_far_behind_what_all_keys_share() -> None:
    alphabet = sorted(set("/0123456789artis"))
    assert count_spans("artist/000000000000000010", "artist/000000000000000020", "artist/1", alphabet) > 1e6
