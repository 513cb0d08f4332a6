"""Build: run what is missing and assemble the image."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import BuildgraphError, EnvironmentProblem, RemoteError, StoreProblem, UsageError
from cache.images import Images
from cache.lease import sweep_leases
from cache.run_dir import sweep
from compiler.assemble import assemble
from compiler.build_log import BuildLog
from compiler.failure import Contradicted
from compiler.fleet_choice import NO_CHOICE, FleetChoice
from compiler.needs import needed
from compiler.progress.events import Announced, Finished, node_infos
from compiler.progress.platforms import platform_reporters
from compiler.reasons import Reason
from compiler.records import medians
from compiler.remote_cache import LayerGone
from compiler.session import Definition, Session
from worker.library import LayerLibrary
from worker.maker import maker
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.image_config import ImageConfig
    from cache.lmdb_store import LmdbStore
    from cache.result import Layer, Result
    from compiler.agents import Agents
    from compiler.dispatch import Executes
    from compiler.fleet.placing import Fleet, Placing
    from compiler.graph import Node
    from compiler.options import BuildOptions, SecretSource
    from compiler.progress.events import Reporter
    from compiler.remote_cache import RemoteCache
    from compiler.team_build import TeamBuild
    from worker.execute import Executor
    from worker.run import Machine

    Place = Callable[[Session, Reporter], Placing]

MAX_SECRET = 500 << 10
"""Bytes of a secret, docker's own limit."""


class Built(NamedTuple):
    """What a build made. session: for whoever takes the image out."""

    session: Session
    config: ImageConfig
    layers: tuple[Layer, ...]


class _Piece(NamedTuple):
    """A variant between being looked up and being built. results: known ones, in the end all. provisional: steps with a
    known one that may turn out not to be good."""

    session: Session
    log: BuildLog
    reporter: Reporter
    steps: list[Node]
    missing: list[Node]
    results: dict[str, Result]
    provisional: frozenset[str]


class Builder:
    """Builds one definition on one store. Closing it ends what the build started; close it in any case.

    announced: whether it came as far as saying what it will do. hits, ran: how many steps were known, and the ids of
    those that were executed, also after a failure.
    """

    def __init__(
        self,
        store: LmdbStore,
        reporter: Reporter,
        jobs: int,
        remote: RemoteCache | None = None,
        choice: FleetChoice = NO_CHOICE,
    ) -> None:
        """remote: a cache server that is asked, and given what is made; its fleet, if it has one, runs commands.
        choice: what the user said about that."""
        self._choice = choice
        self._fleet: Fleet | None = None
        self._store = store
        self._remote = remote
        self._team: TeamBuild | None = None
        self._machine: Machine | None = None
        self._agents: Agents | None = None
        self._unready: BuildgraphError | None = None
        self._reporter = reporter
        self._jobs = jobs
        self._pieces: list[_Piece] = []
        self._strict = False
        self._told: set[tuple[str, str]] = set()
        self.announced = False
        self.hits = 0
        self.ran: list[str] = []

    def build(
        self, definition: Definition, variants: Sequence[BuildOptions], *, takes_out: bool = False
    ) -> list[Built]:
        """One image for each variant; variants differ in their platform only. takes_out: whether their bytes will be
        wanted.

        Raises BuildgraphError, mostly FailedAt, and KeyboardInterrupt; what finished before is kept in the store.
        """
        if self._remote is not None:
            from compiler.team_build import TeamBuild

            self._team = self._team or TeamBuild(self._remote, self._reporter.report)
            images, library = self._team.images, self._team.library
        else:
            images = Images(self._store)
            library = LayerLibrary(self._store, images)
        self.hits = 0
        reporters = platform_reporters(self._reporter, [str(options.platform) for options in variants])
        sessions = [
            Session(self._store, definition, options, images, library, team=self._remote) for options in variants
        ]
        if self._team is not None:
            self._team.look_up(sessions, lambda: self._prepare_early(sessions[0].options, library), takes_out=takes_out)
        pieces = [self._prepare(session, each) for session, each in zip(sessions, reporters, strict=True)]
        self._pieces = pieces
        built: list[Built] = []
        try:
            if any(piece.missing for piece in pieces):
                self._execute(pieces, library)
            self.hits = sum(len(piece.steps) for piece in pieces) - len(self.ran)
            for piece in pieces:
                epoch = piece.session.options.source_date_epoch
                built.append(Built(piece.session, *assemble(piece.session.graph, piece.results, epoch)))
        except LayerGone as gone:
            library.forget(gone.diff_id)
            pieces = []  # the build begins again, and that one is told of
            raise
        except Contradicted:
            self._strict = True
            pieces = []
            raise
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
        found = session.known(strict=self._strict)
        known = found.results
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
                promised = session.lookup.promised.get(session.lookup.contents.get(node.id, ""))
                note = f"from {promised.origin.server}" if promised is not None else ""
                if node.id not in found.provisional:
                    self._tell_known(reporter, session, node, known[node.id], note)
        missing = [node for node in steps if node.id not in known]
        return _Piece(session, log, reporter, steps, missing, known, frozenset(found.provisional))

    def _tell_known(self, reporter: Reporter, session: Session, node: Node, result: Result, note: str = "") -> None:
        """Once, also where the build begins again."""
        name = (str(session.options.platform), node.id)
        if name not in self._told:
            self._told.add(name)
            key = session.lookup.contents.get(node.id, "")
            reporter.report(Finished(node.id, "cached", 0.0, result.size, note, Reason.SAME_RECIPE.value, key))

    def _execute(self, pieces: Sequence[_Piece], library: LayerLibrary) -> None:
        """Make what is missing; results end up in the pieces."""
        from compiler.dispatch import Dispatcher, Given
        from compiler.plan import Plan
        from worker.execute import Executor

        options = pieces[0].session.options
        secrets = {source.id: read_secret(source) for source in options.secrets}
        runs = any(isinstance(node.definition, Run) for piece in pieces for node in piece.missing)
        fleet = self._open_fleet(pieces[0].session) if runs else None
        alone = fleet is None or not fleet.has_workers
        if alone or self._agents is None:
            self._prepare_to_run(options, library, runs=runs and alone)
        if not runs and any(piece.provisional and piece.session.graph.has_runs for piece in pieces):
            self._prepare_early(options, library)  # it may turn out that a RUN has to be executed all the same
        agents = self._agents.sockets if self._agents is not None else {}
        # From here on there are threads, and nothing forks any more.
        self._store.start_writer()
        sweep(self._store.directory)  # once more: only now an ordinary user may remove what steps owned
        executor, place = self._executor(Executor(self._store, library, self._machine), library, fleet)
        jobs = self._jobs

        def at_once() -> int:
            return jobs if fleet is None else fleet.at_once(jobs)

        try:
            for piece in pieces:
                session = piece.session
                plan = Plan(session.graph, piece.results, medians(session.records.expected()), at_once())
                made = self._team.made(session) if self._team is not None else lambda *_: None
                dispatcher = Dispatcher(
                    session, plan, executor, piece.reporter, Given(secrets, agents), at_once, made, piece.provisional,
                    place and place(session, piece.reporter),
                )  # fmt: skip
                try:
                    piece.results.update(dispatcher.run())
                    for name in piece.provisional:
                        self._tell_known(piece.reporter, session, session.graph[name], piece.results[name])
                finally:
                    self.ran += dispatcher.ran
                    self._told |= {(str(session.options.platform), name) for name in dispatcher.ran}
                    piece.log.ended(dispatcher.nodes)
        finally:
            executor.close()

    def _open_fleet(self, session: Session) -> Fleet | None:
        """The server's fleet, if it has one for us. The server was contacted when it was asked."""
        lost = self._fleet is not None and self._fleet.is_lost
        if self._team is None or self._team.remote.client is None or lost:
            return None
        from compiler.fleet.placing import open_fleet
        from compiler.remote_records import project_name

        name, insists = project_name(session.project), self._choice.local_slots == 0
        self._fleet = open_fleet(self._team.remote, name, insists=insists)
        return self._fleet

    def _executor(
        self, executor: Executor, library: LayerLibrary, fleet: Fleet | None
    ) -> tuple[Executes, Place | None]:
        """What executes, and for each session how a step is placed."""
        slots = self._choice.local_slots
        if fleet is None and slots is None:
            return executor, None
        from compiler.fleet.here import Here

        here = Here(executor, self._jobs, slots, self._unready)
        team = self._team
        if fleet is None or team is None:
            return here, None
        from compiler.fleet.placing import Placing

        placed = fleet.executor(here, library, self._choice.trusted)
        began, labels = time.time(), dict(self._choice.labels)
        return placed, lambda session, reporter: Placing(placed, session, reporter, team, began, labels)

    def _prepare_to_run(self, options: BuildOptions, library: LayerLibrary, *, runs: bool) -> None:
        """What forks, and so must be done before there are threads. Raises EnvironmentProblem, UsageError."""
        if self._unready is not None and (runs or options.ssh):
            raise self._unready
        if self._agents is None:
            from compiler.agents import Agents

            self._agents = Agents(options.ssh, self._store)
        if runs and self._machine is None and self._choice.local_slots != 0:
            from worker.machine import open_machine

            self._machine = open_machine(self._store, library)

    def _prepare_early(self, options: BuildOptions, library: LayerLibrary) -> None:
        """The same where it may turn out that nothing runs: then what this machine lacks does not matter."""
        try:
            self._prepare_to_run(options, library, runs=True)
        except BuildgraphError as error:
            self._unready = error

    def prepare_outputs(self, built: Sequence[Built]) -> None:
        """Before images leave the store: layers may have to come from the cache server first. From the main thread."""
        layers = [layer for each in built for layer in each.layers]
        if self._team is not None and self._team.needs_contact(layers):
            session, library = built[0].session, self._team.library
            self._team.contact(lambda: self._prepare_early(session.options, library))

    def leave_remote(self) -> None:
        """Make the rest without the cache server, which has too little of what it promises; unless its fleet counts."""
        fleet = self._fleet is not None and self._fleet.has_workers
        if self._remote is None or self._remote.off or fleet or self._unready or self._choice.local_slots == 0:
            return
        origin = self._remote.settings.origin
        self._remote.give_up(RemoteError(f"the remote {origin} has too little of what it promised"))

    def publish(self, *, ok: bool) -> None:
        """Give the cache server what it has not, and wait for that. ok: whether the build ended well."""
        if self._team is None:
            return
        from compiler.remote_records import build_record, step_records

        used = [(piece.session, piece.log.contents(), piece.results) for piece in self._pieces]
        builds = [each for piece in self._pieces if (each := piece.log.record) is not None]
        records = [build_record(each) for each in builds]
        # What failed has no result that would be published, but is asked about above all.
        failed = [node.recipe for each in builds for node in each.nodes if node.status == "failed"]
        records += step_records(self._store, failed, set())
        self._team.finish(used, records, ok=ok)

    def close(self) -> None:
        """End the keeper and everything in it."""
        if self._fleet is not None:
            self._fleet.close()
        if self._team is not None:
            self._team.close()
        if self._agents is not None:
            self._agents.close()
        if self._machine is not None:
            self._machine.keeper.close()
        # A build with nothing to do has not looked for what killed ones left.
        with contextlib.suppress(OSError):
            sweep(self._store.directory)
            sweep_leases(self._store.directory)


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
