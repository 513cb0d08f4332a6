"""Build: run what is missing and assemble the image."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import EnvironmentProblem, StoreProblem, UsageError
from cache.images import Images
from cache.run_dir import sweep
from compiler.assemble import assemble
from compiler.build_log import BuildLog
from compiler.needs import needed
from compiler.progress.events import Announced, Finished, node_infos
from compiler.progress.platforms import platform_reporters
from compiler.records import medians
from compiler.session import Definition, Session
from worker.library import LayerLibrary
from worker.maker import maker
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.image_config import ImageConfig
    from cache.lmdb_store import LmdbStore
    from cache.result import Layer, Result
    from compiler.graph import Node
    from compiler.options import BuildOptions, SecretSource
    from compiler.progress.events import Reporter

MAX_SECRET = 500 << 10
"""Bytes of a secret, docker's own limit."""


class Built(NamedTuple):
    """What a build made. session: for whoever takes the image out."""

    session: Session
    config: ImageConfig
    layers: tuple[Layer, ...]


class _Piece(NamedTuple):
    """A variant between being looked up and being built. results: known ones, in the end all."""

    session: Session
    log: BuildLog
    reporter: Reporter
    steps: list[Node]
    missing: list[Node]
    results: dict[str, Result]


class Builder:
    """Builds one definition on one store. Closing it ends what the build started; close it in any case.

    announced: whether it came as far as saying what it will do. hits, ran: how many steps were known, and the ids of
    those that were executed, also after a failure.
    """

    def __init__(self, store: LmdbStore, reporter: Reporter, jobs: int) -> None:
        self._store = store
        self._reporter = reporter
        self._jobs = jobs
        self._close_machine: Callable[[], None] = lambda: None
        self.announced = False
        self.hits = 0
        self.ran: list[str] = []

    def build(self, definition: Definition, variants: Sequence[BuildOptions]) -> list[Built]:
        """One image for each variant; variants differ in their platform only.

        Raises BuildgraphError, mostly FailedAt, and KeyboardInterrupt; what finished before is kept in the store.
        """
        images = Images(self._store)
        library = LayerLibrary(self._store, images)
        reporters = platform_reporters(self._reporter, [str(options.platform) for options in variants])
        pieces = [
            self._prepare(Session(self._store, definition, options, images, library), reporter)
            for options, reporter in zip(variants, reporters, strict=True)
        ]
        built: list[Built] = []
        try:
            if any(piece.missing for piece in pieces):
                self._execute(pieces, library)
            self.hits = sum(len(piece.steps) for piece in pieces) - len(self.ran)
            for piece in pieces:
                epoch = piece.session.options.source_date_epoch
                built.append(Built(piece.session, *assemble(piece.session.graph, piece.results, epoch)))
        finally:
            for number, piece in enumerate(pieces):
                done = number < len(built)
                image = built[number].config.image_id if done else ""
                # What only tells about the build must not make it fail.
                with contextlib.suppress(StoreProblem):
                    self._store.commit(piece.log.batch(ok=done, image=image))
        return built

    def _prepare(self, session: Session, reporter: Reporter) -> _Piece:
        """Look up what is known, and announce what will be shown."""
        known = session.known()
        wanted = needed(session.graph, known)
        steps = [node for node in session.graph if node.is_step and node.id in wanted]
        shown = {node.id for node in steps}
        self.announced = True
        reporter.report(Announced(tuple(info for info in node_infos(session.graph) if info.id in shown)))
        log = BuildLog(session, maker())
        for node in steps:
            if node.id in known:
                self.hits += 1
                log.known(node, known[node.id])
                reporter.report(Finished(node.id, "cached", 0.0, known[node.id].size, ""))
        return _Piece(session, log, reporter, steps, [node for node in steps if node.id not in known], known)

    def _execute(self, pieces: Sequence[_Piece], library: LayerLibrary) -> None:
        """Make what is missing; results end up in the pieces."""
        from compiler.agents import Agents
        from compiler.dispatch import Dispatcher, Given
        from compiler.plan import Plan
        from worker.execute import Executor

        options = pieces[0].session.options
        secrets = {source.id: read_secret(source) for source in options.secrets}
        agents = Agents(options.ssh, self._store)
        machine = None
        try:
            if any(isinstance(node.definition, Run) for piece in pieces for node in piece.missing):
                from worker.machine import open_machine

                machine = open_machine(self._store, library)
                self._close_machine = machine.keeper.close
            # From here on there are threads, and nothing forks any more.
            self._store.start_writer()
            sweep(self._store.directory)  # once more: only now an ordinary user may remove what steps owned
            executor = Executor(self._store, library, machine)
            try:
                for piece in pieces:
                    session = piece.session
                    plan = Plan(session.graph, piece.results, medians(session.records.expected()), self._jobs)
                    given = Given(secrets, agents.sockets)
                    dispatcher = Dispatcher(session, plan, executor, piece.reporter, given, self._jobs)
                    try:
                        piece.results.update(dispatcher.run())
                    finally:
                        self.ran += dispatcher.ran
                        piece.log.ended(dispatcher.nodes)
            finally:
                executor.close()
        finally:
            agents.close()

    def close(self) -> None:
        """End the keeper and everything in it."""
        self._close_machine()


def read_secret(source: SecretSource) -> bytes:
    """A secret's value. Raises UsageError, EnvironmentProblem; never with the value in it."""
    if source.env:
        value = os.environ.get(source.env)
        if value is None:
            raise UsageError(f"--secret id={source.id}: the variable {source.env} is not set")
        return value.encode("utf-8", "surrogateescape")
    try:
        with open(source.file, "rb") as file:
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise EnvironmentProblem(f"--secret id={source.id}: cannot read {source.file}: {error.strerror}") from None
    if len(data) > MAX_SECRET:
        raise UsageError(f"--secret id={source.id}: {source.file} is larger than {MAX_SECRET >> 10} KiB")
    return data
