"""Build: run what is missing and assemble the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import EnvironmentProblem, UsageError
from cache.run_dir import sweep
from cache.store import Batch
from compiler.assemble import assemble
from compiler.needs import needed
from compiler.progress.events import Announced, Finished, node_infos
from compiler.session import Definition, Session
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.image_config import ImageConfig
    from cache.lmdb_store import LmdbStore
    from cache.result import Layer, Result
    from compiler.options import BuildOptions, SecretSource
    from compiler.progress.events import Reporter

MAX_SECRET = 500 << 10
"""Bytes of a secret, docker's own limit."""


class Built(NamedTuple):
    """What a build made. session: for whoever takes the image out."""

    session: Session
    config: ImageConfig
    layers: tuple[Layer, ...]


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

    def build(self, definition: Definition, options: BuildOptions) -> Built:
        """Raises BuildgraphError, mostly FailedAt, and KeyboardInterrupt; what finished before is kept in the store."""
        session = Session(self._store, definition, options)
        known = session.known()
        wanted = needed(session.graph, known)
        steps = [node for node in session.graph if node.is_step and node.id in wanted]
        shown = {node.id for node in steps}
        self.announced = True
        self._reporter.report(Announced(tuple(info for info in node_infos(session.graph) if info.id in shown)))
        for node in steps:
            if node.id in known:
                self.hits += 1
                self._reporter.report(Finished(node.id, "cached", 0.0, _size(known[node.id]), ""))
        missing = [node for node in steps if node.id not in known]
        results = known
        try:
            if missing:
                results = self._execute(session, known, any(isinstance(node.definition, Run) for node in missing))
        finally:
            self._remember(session)
        config, layers = assemble(session.graph, results, options.source_date_epoch)
        self.hits = len(steps) - len(self.ran)
        return Built(session, config, layers)

    def _execute(self, session: Session, known: dict[str, Result], runs: bool) -> dict[str, Result]:
        from compiler.agents import Agents
        from compiler.dispatch import Dispatcher, Given
        from compiler.plan import Plan
        from worker.execute import Executor

        secrets = {source.id: read_secret(source) for source in session.options.secrets}
        agents = Agents(session.options.ssh, self._store)
        machine = None
        if runs:
            from worker.machine import open_machine

            machine = open_machine(self._store, session.library)
            self._close_machine = machine.keeper.close
        # From here on there are threads, and nothing forks any more.
        self._store.start_writer()
        sweep(self._store.directory)  # once more: only now an ordinary user may remove what steps owned
        executor = Executor(self._store, session.library, machine)
        try:
            plan = Plan(session.graph, known, session.records.expected(session.graph), self._jobs)
            given = Given(secrets, agents.sockets)
            dispatcher = Dispatcher(session, plan, executor, self._reporter, given, self._jobs)
            self.ran = dispatcher.ran
            return dispatcher.run()
        finally:
            executor.close()
            agents.close()

    def _remember(self, session: Session) -> None:
        records = tuple(("stats", key, value) for key, value in session.sources.records())
        if records:
            self._store.submit(Batch(records=records))  # type: ignore[arg-type]  # the table's name is a literal

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


def _size(result: Result) -> int | None:
    return result.layer.tar.size if result.layer is not None and result.layer.tar is not None else None
