"""A web server with a folder behind it: plain, or as an S3-compatible store that wants signed requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class WebFolder:
    """Where it listens, and what was asked of it."""

    url: str
    requested: list[str] = field(default_factory=list)


@contextmanager
def web_folder(folder: Path, *, signed: bool = False) -> Iterator[WebFolder]:
    """Serves the files below `folder` on a free port of 127.0.0.1."""
    web = WebFolder("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).lstrip("/")
            web.requested.append(path)
            if signed and not self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 Credential=key/"):
                self._answer(403, b"")
            elif not (folder / path).is_file():
                self._answer(404, b"")
            else:
                self._answer(200, (folder / path).read_bytes())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT")
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
