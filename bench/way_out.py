"""A proxy that stands in a network namespace and calls from the namespace that it was started in: a way out for apt."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.slow_link import enter

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 3128
KEPT_BACK = frozenset(("connection", "proxy-connection", "keep-alive", "transfer-encoding", "host", "te", "upgrade"))
"""Header fields that are of one connection."""
SECONDS = 60


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        fields = {name: value for name, value in self.headers.items() if name.lower() not in KEPT_BACK}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.path, headers=fields), timeout=SECONDS) as answer:
                self._answer(answer.status, answer.headers.items())
                shutil.copyfileobj(answer, self.wfile)
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.headers.items())
            shutil.copyfileobj(error, self.wfile)
        except OSError as error:
            self.send_error(502, str(error))

    def _answer(self, status: int, fields: object) -> None:
        self.send_response(status)
        for name, value in fields:  # type: ignore[attr-defined]
            if name.lower() not in KEPT_BACK:
                self.send_header(name, value)
        self.end_headers()

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        try:
            far = socket.create_connection((host, int(port)), timeout=SECONDS)
        except (OSError, ValueError) as error:
            self.send_error(502, str(error))
            return
        self.send_response(200)
        self.end_headers()
        with far, ThreadPoolExecutor(2) as pool:
            pool.submit(_pump, self.connection, far)
            pool.submit(_pump, far, self.connection)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def way_out(namespace: str) -> Iterator[str]:
    """The URL of the proxy, as those in the namespace know it."""

    def listen() -> http.server.ThreadingHTTPServer:
        enter(namespace)  # of this thread only, and the socket stays where it was made
        return http.server.ThreadingHTTPServer(("127.0.0.1", PORT), _Handler)

    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(listen).result()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
