"""An API server that takes patches of pods, over real HTTP or HTTPS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.patience import PATIENCE_SECONDS
from tests.runtime.certificates import Identity


@dataclass
class KubernetesApi:
    """What it was asked, and what it answers with."""

    url: str
    token: str
    status: int = 200
    patches: list[tuple[str, Any]] = field(default_factory=list)
    refused: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def costs(self) -> list[str]:
        return [
            body["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] for _, body in self.patches
        ]

    def wait_for_cost(self, cost: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.costs()[-1:] == [cost], PATIENCE_SECONDS), self.patches


@contextmanager
def kubernetes_api(token: str, identity: Identity | None = None) -> Iterator[KubernetesApi]:
    """Listens on a free port of 127.0.0.1; with an identity, in TLS."""
    api = KubernetesApi("", token)

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            allowed = self.headers["Authorization"] == f"Bearer {api.token}"
            understood = self.headers["Content-Type"] == "application/merge-patch+json"
            status = api.status if understood else 415
            with api.changed:
                if allowed and status == 200:
                    api.patches.append((self.path, body))
                else:
                    api.refused += 1
                api.changed.notify_all()
            self.send_response(status if allowed else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    api.url = f"{'http' if identity is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
