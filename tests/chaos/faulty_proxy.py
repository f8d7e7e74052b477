"""A proxy before an S3 server that fails as networks and stores do, at random but by a seed.

Of the requests some get 503, some lose their connection (half of those after the server did as it was told), some come
late. `forced` answers what one wants for paths that hold some text, `requests` counts what came in.
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
    """Args: upstream: host:port; unavailable, reset, delayed: shares of the requests, 0 to 1; delay_s: seconds."""

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

    def fate(self, method: str, path: str) -> str | int:
        """What becomes of a request: a status that is forced, the name of a fault, or "fine"."""
        with self.lock:
            self.requests[method, urlsplit(path).path] += 1
            for text, statuses in self.forced.items():
                if text in path and statuses:
                    return statuses.pop(0) if len(statuses) > 1 else statuses[0]
            (fate,) = self.random.choices(
                [*self.shares, "fine"], [*self.shares.values(), 1 - sum(self.shares.values())]
            )
            self.faults[fate] += 1
            return fate

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.server.fate(self.command, self.path)
        if fate == "delayed":
            time.sleep(self.server.delay_s)
        elif fate == "reset":
            self._reset()
            return
        elif fate == "unavailable":
            fate = 503
        if isinstance(fate, int) and fate != 200:
            self._answer(fate, [("Content-Type", "application/xml")], SLOW_DOWN % CODES[fate])
            return
        answer = self._forward(body)
        if fate == "answer lost":
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
                length = value  # of a HEAD: that of the object
            elif name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)) if self.command != "HEAD" or length is None else length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()  # without a goodbye
        self.close_connection = True


@contextlib.contextmanager
def before(endpoint: str, **faults: float) -> Iterator[Proxy]:
    """A proxy that runs before `endpoint` while the body does."""
    with Proxy(urlsplit(endpoint).netloc, **faults) as proxy:  # type: ignore[arg-type]
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
