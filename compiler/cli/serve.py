"""`buildgraph serve`: the cache that a team shares, from start to drain."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from cache.errors import StoreProblem, UsageError
from compiler.cli import settings
from compiler.cli.serve_options import serve_options, serve_parser
from compiler.cli.streams import say
from compiler.progress.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.lmdb_store import LmdbStore
    from cache.server.certificates import Certificates
    from cache.server.journal import Journal
    from compiler.cli.serve_options import ServeOptions

KILLED = 143
"""128 + SIGTERM: the exit code of a second signal, after which nothing is waited for."""
LOOK_SECONDS = 5.0
"""How often is seen whether the store can still be written."""
LOOPBACK = ("127.", "localhost:", "[::1]:")


def run(arguments: Sequence[str]) -> int:
    """The exit code, or an exception."""
    if arguments and arguments[0] == "token":
        from compiler.cli import serve_token

        return serve_token.run(arguments[1:])
    parsed = serve_parser().parse_args(list(arguments))
    defaults = settings.load()
    options = serve_options(parsed, os.path.abspath(parsed.store or defaults.store), defaults.serve)
    return _Service(options).run()


class _Service:
    """Everything that one server consists of."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._journal: Journal | None = None

    def run(self) -> int:
        from cache.server.journal import Journal, fail_loudly

        # First what takes no time and may be wrong, so that a mistake is told before anything is opened.
        journal = self._journal = Journal(self._options.log)
        certificates = self._certificates(journal)
        self._check_access()
        from cache.lmdb_store import LmdbStore

        journal.take_logging()
        fail_loudly(journal)
        store = LmdbStore(self._options.store)
        try:
            self._serve(store, journal, certificates)
        finally:
            store.close()
            journal.close()
        return 0

    def _certificates(self, journal: Journal) -> Certificates | None:
        options = self._options
        if not options.tls_cert:
            return None
        from cache.server.certificates import Certificates

        return Certificates(options.tls_cert, options.tls_key, options.tls_client_ca, journal)

    def _check_access(self) -> None:
        """Raises UsageError if nobody could do anything, EnvironmentProblem for a file that cannot be used."""
        from cache.server.tokens import load

        options = self._options
        if load(options.tokens).all or options.anonymous:
            return
        where = f"{printable(options.tokens)} holds none"
        hint = (
            "make a token with `buildgraph serve token create --name NAME --scope read,write`"
            f"{' --tokens ' + options.tokens if options.insist else ''}, or let everybody in with --anonymous read"
        )
        text = f"nobody could use this server: there are no tokens ({where}), and --anonymous is none"
        raise UsageError(text, hint=hint)

    def _serve(self, store: LmdbStore, journal: Journal, certificates: Certificates | None) -> None:
        from cache.server.calls import Calls
        from cache.server.http_port import HttpPort
        from cache.server.metrics import CONTENT_TYPE, Metrics
        from cache.server.quotas import Quotas
        from cache.server.server import Server
        from cache.server.server_gc import Policy, ServerGc
        from cache.server.shared_records import SharedRecords
        from cache.server.tally import Tally
        from cache.server.token_guard import TokenGuard
        from cache.server.tuning import tune_process
        from compiler.fleet.asking import state_json
        from compiler.pages.pages import Pages
        from worker.fleet.service import FleetService

        tune_process()
        options = self._options
        metrics = Metrics()
        quotas = Quotas(store, options.namespace_limits, options.max_used)
        metrics.watch_store(options.store, quotas)
        guard = TokenGuard(options.tokens, options.anonymous, quotas, journal)
        tally = Tally(store, metrics)
        calls = Calls(journal, metrics, guard.message_limit)
        fleet = FleetService(journal.write, metrics, shares_mounts=options.shares_mounts)
        server = Server(
            store, options.listen, guard, meter=tally, reflection=options.reflection,
            interceptors=[calls], turned_away=calls.turned_away, further=fleet,
            credentials=certificates.credentials() if certificates is not None else None,
        )  # fmt: skip
        collector = ServerGc(server.core.shelf, quotas, Policy(options.min_free, options.unused_for), journal, metrics)
        port = None
        if options.http:
            page = Pages(
                store, SharedRecords(store), guard, quotas, tally, journal, lambda sees: state_json(fleet.state(sees))
            )
            port = HttpPort(options.http, journal, metrics.text, CONTENT_TYPE, page=page, certificates=certificates)
        self._take_signals(journal)
        server.start()
        collector.start()
        tally.start()
        if port is not None:
            port.start()
        self._tell(journal, server.port, None if port is None else port.port)
        self._wait(store, journal)
        server.drain()
        if port is not None:
            port.draining = True
        journal.write("draining", seconds=options.grace)
        server.stop(options.grace)
        collector.stop()
        tally.stop()
        if port is not None:
            port.stop()
        journal.write("stopped")

    def _wait(self, store: LmdbStore, journal: Journal) -> None:
        """Until a signal comes, or the store cannot be written any more: whoever supervises starts us again then."""
        from cache.server.tuning import give_back_memory
        from cache.store import Batch

        while not self._stop.wait(LOOK_SECONDS):
            give_back_memory()
            try:
                store.commit(Batch())
            except StoreProblem as problem:
                journal.write("error", text=f"{problem.message}; the server ends")
                return

    def _take_signals(self, journal: Journal) -> None:
        def stop(*_: object) -> None:
            if self._stop.is_set():
                os._exit(KILLED)
            self._stop.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, lambda *_: journal.reopen())

    def _tell(self, journal: Journal, port: int, http: int | None) -> None:
        options = self._options
        scheme = "grpcs" if options.tls_cert else "grpc"
        host = options.listen.rpartition(":")[0]
        text = f"serving {printable(options.store)} at {scheme}://{host}:{port}"
        if http is not None:
            text += f", http{'s' if options.tls_cert else ''}://{options.http.rpartition(':')[0]}:{http}/"
        say(f"{text}\n")
        if not options.tls_cert and not options.listen.startswith(LOOPBACK):
            sys.stderr.write("WARNING: without TLS tokens and layers can be read by whoever is on the way\n")
        journal.write("started", listen=f"{host}:{port}", store=options.store, anonymous=",".join(options.anonymous))
