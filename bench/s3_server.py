"""moto's S3 in a server that keeps connections open, as S3 does: python bench/s3_server.py PORT

moto's own server, werkzeug, closes each connection after one response. Behind a latency of 100 ms, every request would
then pay for a handshake that S3 does not need.
"""

import io
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from moto.server import DomainDispatcherApplication, create_backend_app


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        BaseHTTPRequestHandler.handle(self)  # wsgiref's own method serves one request and closes the connection

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self) -> None:
        body = io.BytesIO(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        response = ServerHandler(body, self.wfile, sys.stderr, self.get_environ() | {"RAW_URI": self.path})
        response.http_version = "1.1"
        response.request_handler = self  # type: ignore[attr-defined]
        response.run(self.server.get_app())  # type: ignore[attr-defined]

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _respond


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.set_app(DomainDispatcherApplication(create_backend_app))
        server.serve_forever()
