"""HttpPort: the health, the metrics, and pages for people. Bounded: few threads, short requests, GET and HEAD alone."""

from __future__ import annotations

import contextlib
import http.server
import queue
import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache.server.certificates import Certificates
    from cache.server.journal import Journal

    PageMaker = Callable[["PageRequest"], "PageAnswer | None"]
    """Makes a page; None if there is none at that path. May be called by several threads at once."""

THREADS = 16
"""Requests at the same time."""
WAITING = 64
"""Connections that wait for a thread; those beyond are closed."""
SECONDS = 10.0
"""How long is waited for the next piece of a request, or for a reader to take the next one of an answer."""
MOST_SECONDS, CONTENDED_SECONDS = 30.0, 1.0
"""What one request may take in all; and how soon it must have come if others wait for a thread."""
TEXT = "text/plain; charset=utf-8"


class PageRequest(NamedTuple):
    """path: as it came, without the query. query: without the question mark. headers: names in lower case. secure:
    whether it came by TLS."""

    path: str
    query: str
    headers: Mapping[str, str]
    secure: bool = False


class PageAnswer(NamedTuple):
    """headers: beside Content-Type and Content-Length."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class HttpPort:
    """Serves from `start` until `stop`."""

    def __init__(
        self,
        listen: str,
        journal: Journal,
        metrics: Callable[[], bytes],
        metrics_type: str,
        *,
        page: PageMaker | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """listen: `HOST:PORT`, port 0 for any. Raises EnvironmentProblem if it cannot listen there."""
        self.draining = False
        self._journal = journal
        self._metrics = metrics
        self._metrics_type = metrics_type
        self._page = page
        self._certificates = certificates
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        try:
            address = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _Server(address[0], address[4], self)
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            hint = "choose another with --http"
            raise EnvironmentProblem(f"cannot listen on {listen}: {reason}", hint=hint) from None
        self.port: int = self._server.server_address[1]
        self._threads = [threading.Thread(target=self._server.serve_forever, name="http", daemon=True)]
        self._threads += [
            threading.Thread(target=self._server.work, name=f"http-{number}", daemon=True) for number in range(THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: PageRequest) -> PageAnswer:
        """Never fails."""
        try:
            if request.path == "/healthz":
                return PageAnswer(503, TEXT, b"draining\n") if self.draining else PageAnswer(200, TEXT, b"ok\n")
            if request.path == "/metrics":
                return PageAnswer(200, self._metrics_type, self._metrics())
            found = self._page(request) if self._page is not None else None
        except Exception as error:  # noqa: BLE001, one page that fails is no reason to end
            self._journal.write("error", source="http", path=request.path, text=f"{type(error).__name__}: {error}")
            return PageAnswer(500, TEXT, b"the server failed; its log says more\n")
        return found or PageAnswer(404, TEXT, b"there is no such page; try /healthz or /metrics\n")

    def secure(self, connection: socket.socket) -> socket.socket:
        """Raises OSError for what is no TLS (ssl's own are of that kind)."""
        connection.settimeout(SECONDS)
        if self._certificates is None:
            return connection
        return self._certificates.context().wrap_socket(connection, server_side=True)

    @property
    def is_secure(self) -> bool:
        return self._certificates is not None


class _Server(socketserver.TCPServer):
    """Hands connections to a few threads."""

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, family: int, address: object, port: HttpPort) -> None:
        self.address_family = family
        self.port = port
        self._waiting: queue.Queue[tuple[socket.socket, object]] = queue.Queue(WAITING)
        self._busy: dict[int, tuple[socket.socket, float]] = {}
        """Thread → what it answers, since when."""
        self._reading: set[int] = set()
        """Threads whose request has not come yet."""
        super().__init__(address, _Handler)  # type: ignore[arg-type]

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        try:
            self._waiting.put_nowait((request, client_address))
        except queue.Full:
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: ends those that take too long."""
        now = time.monotonic()
        contended = not self._waiting.empty()
        for thread, (connection, since) in tuple(self._busy.items()):
            most = CONTENDED_SECONDS if contended and thread in self._reading else MOST_SECONDS
            if now - since > most:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def has_come(self) -> None:
        """The request of this thread is here."""
        self._reading.discard(threading.get_ident())

    def work(self) -> None:
        """One of the threads."""
        me = threading.get_ident()
        while True:
            raw, address = self._waiting.get()
            connection = raw
            # A descriptor of its own: that of the connection goes to TLS.
            with contextlib.suppress(OSError, ValueError), raw.dup() as watched:
                self._busy[me] = watched, time.monotonic()
                self._reading.add(me)
                try:
                    connection = self.port.secure(raw)
                    _Handler(connection, address, self)
                finally:
                    self.has_come()
                    del self._busy[me]
            with contextlib.suppress(OSError, ValueError):
                self.shutdown_request(connection)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request a connection: a slow reader holds a thread for a moment only."""

    server: _Server
    server_version = "buildgraph"
    sys_version = ""
    timeout = SECONDS

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        self.server.has_come()
        port = self.server.port
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = port.answer(PageRequest(path, query, headers, port.is_secure))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, its name there
        """Requests are not worth a line."""
