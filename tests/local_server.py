"""A local server that stands in for a hub and for the web, well-behaved on /file and hostile elsewhere."""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from curation.settings import FetchSettings

BODY = bytes(range(256)) * 4000
BOMB_BYTES = 1_000_000_000


class Server(ThreadingHTTPServer):
    """Serves `files` with ranges; the first answers are cut off after so many bytes each, or refused with 503."""

    daemon_threads = True

    def __init__(self) -> None:
        self.files = {"/file": BODY, "/a/b/file": BODY}
        self.etag = '"first"'
        self.cuts: list[int] = []
        self.n_busy = 0
        self.ignores_if_range = False
        self.elsewhere = 0  # the port of another server
        self.asked: list[tuple[str, str | None]] = []  # path and range
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is what the tests want


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        special = getattr(self, "_" + self.path.strip("/").replace("-", "_"), None)
        if special:
            self.close_connection = True
            special()
        elif self.path in self.server.files:
            self._send_file(self.server.files[self.path])
        else:
            self.send_error(404)

    def _send_file(self, body: bytes) -> None:
        if self.server.n_busy:
            self.server.n_busy -= 1
            self._start(503)
            return
        first, last = 0, len(body) - 1
        asked, if_range = self.headers.get("Range"), self.headers.get("If-Range", self.server.etag)
        is_part = asked is not None and (if_range == self.server.etag or self.server.ignores_if_range)
        headers = {"ETag": self.server.etag}
        if asked and is_part:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        self._start(206 if is_part else 200, Content_Length=str(last + 1 - first), **headers)
        if self.server.cuts:
            last = first + self.server.cuts.pop(0) - 1
            self.close_connection = True
        self.wfile.write(body[first : last + 1])

    def _start(self, status: int, **headers: str) -> None:
        self.send_response(status)
        if status not in (200, 206) and "Content_Length" not in headers:
            headers["Content_Length"] = "0"
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _pour(self, data: bytes, pause: float = 0.0, times: int = 10**9) -> None:
        for _ in range(times):
            self.wfile.write(data)
            if pause and self.server.ended.wait(pause):
                return

    def _always_busy(self) -> None:
        self._start(503)

    def _forbidden(self) -> None:
        self._start(403)

    def _without_parts(self) -> None:
        self._start(200, Content_Length=str(len(BODY)))
        self.wfile.write(BODY)

    def _unasked_part(self) -> None:
        self._start(206, Content_Length="10", Content_Range=f"bytes 0-9/{len(BODY)}")
        self.wfile.write(BODY[:10])

    def _to_file(self) -> None:
        self._start(302, Location="/file")

    def _to_loopback(self) -> None:
        self._start(302, Location=f"http://127.0.0.1:{self.server.elsewhere}/file")

    def _to_loopback_tls(self) -> None:
        self._start(307, Location=f"https://127.0.0.1:{self.server.elsewhere}/file")

    def _to_metadata(self) -> None:
        self._start(301, Location="https://169.254.169.254/latest/meta-data/")

    def _to_disk(self) -> None:
        self._start(302, Location="file:///etc/passwd")

    def _to_plain_http(self) -> None:
        self._start(302, Location="http://example.org/file")

    def _to_long_body(self) -> None:
        self._start(302, Location="/file", Content_Length=str(BOMB_BYTES))
        self._pour(bytes(1 << 16))

    def _circle(self) -> None:
        self._start(302, Location="/circle-2")

    def _circle_2(self) -> None:
        self._start(302, Location=f"http://{self.server.host}/circle")

    def _drip(self) -> None:
        self._start(200, Content_Length=str(len(BODY)))
        self._pour(b"x", pause=0.02)

    def _drip_without_length(self) -> None:
        self._start(200)
        self._pour(b"x", pause=0.02)

    def _drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self._pour(b"x", pause=0.02)

    def _drip_chunk_size(self) -> None:
        self._start(200, Transfer_Encoding="chunked")
        self._pour(b"0", pause=0.02)

    def _bomb_declared(self) -> None:
        self._start(200, Content_Length=str(BOMB_BYTES))
        self._pour(bytes(1 << 16))

    def _bomb_without_length(self) -> None:
        self._start(200)
        self._pour(bytes(1 << 16), times=BOMB_BYTES >> 16)

    def _bomb_gzip(self) -> None:
        piece = gzip.compress(bytes(1_000_000))
        self._start(200, Content_Encoding="gzip")
        self._pour(piece, times=BOMB_BYTES // 1_000_000)

    def log_message(self, format: str, *args: object) -> None:
        pass


def fast_limits(server: Server, **changes: Any) -> FetchSettings:
    """Returns limits that trust the server, and give up within a second."""
    seconds = {"patience_seconds": 1.0, "answer_seconds": 0.5, "deadline_seconds": 20.0, "first_pause_seconds": 0.05}
    return FetchSettings(**{"trusted_hosts": [server.host], "max_bytes": 10_000_000, **seconds, **changes})


@contextmanager
def running() -> Iterator[Server]:
    """Yields a server that runs until the end of the block."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.ended.set()
        server.shutdown()


def free_port() -> int:
    """Returns a port of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
