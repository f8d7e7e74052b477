"""A proxy in front of an S3 server that fails as networks and stores do; a seed decides at random.

Some requests are answered with 503, some lose their connection (half of these after the server has carried them out),
and some are delayed. `forced` sets the statuses of requests whose path contains a text; `requests` counts all requests.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>by the proxy</Message></Error>'
CODES = {403: b"AccessDenied", 404: b"NoSuchKey", 500: b"InternalError", 503: b"SlowDown"}


class Proxy(ThreadingHTTPServer):
    """An HTTP server that forwards requests.

    Args:
        upstream: host:port of the S3 server.
        unavailable, reset, delayed: shares of the requests, 0 to 1.
        delay_s: seconds that a delayed request waits.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        upstream: str,
        *,
        unavailable: float = 0.0,
        reset: float = 0.0,
        delayed: float = 0.0,
        delay_s: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.delay_s = upstream, delay_s
        self.shares = {"unavailable": unavailable, "reset": reset / 2, "answer lost": reset / 2, "delayed": delayed}
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.forced: dict[str, list[int]] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choose_outcome(self, method: str, path: str) -> str | int:
        """The outcome of a request: a forced status, the name of a fault, or "fine"."""
        with self.lock:
            self.requests[method, urlsplit(path).path] += 1
            for text, statuses in self.forced.items():
                if text in path and statuses:
                    return statuses.pop(0) if len(statuses) > 1 else statuses[0]
            (outcome,) = self.random.choices(
                [*self.shares, "fine"], [*self.shares.values(), 1 - sum(self.shares.values())]
            )
            self.faults[outcome] += 1
            return outcome

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that closed their connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        outcome = self.server.choose_outcome(self.command, self.path)
        if outcome == "delayed":
            time.sleep(self.server.delay_s)
        elif outcome == "reset":
            self._reset()
            return
        elif outcome == "unavailable":
            outcome = 503
        if isinstance(outcome, int) and outcome != 200:
            self._answer(outcome, [("Content-Type", "application/xml")], SLOW_DOWN % CODES[outcome])
            return
        answer = self._forward(body)
        if outcome == "answer lost":
            self._reset()
        else:
            self._answer(*answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        with contextlib.closing(upstream):
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            response = upstream.getresponse()
            return response.status, response.getheaders(), response.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = None
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # the answer to HEAD states the length of the object
            elif name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)) if self.command != "HEAD" or length is None else length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()  # with a reset, because SO_LINGER is 0
        self.close_connection = True


@contextlib.contextmanager
def proxy_of(endpoint: str, **faults: float) -> Iterator[Proxy]:
    """Run a proxy in front of `endpoint` while the body runs."""
    with Proxy(urlsplit(endpoint).netloc, **faults) as proxy:  # type: ignore[arg-type]
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
