"""Placing: opens the fleet for a build, and has the steps of a session made where that is best."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import fleet_pb2, team_pb2

from cache.remote.local_chunks import LocalChunks
from cache.remote.trouble import RemoteTrouble
from cache.remote.writing import BlobWriter, Outgoing
from compiler.fleet.inputs import Inputs
from compiler.fleet.link import Link
from compiler.fleet.needs_of import critical_paths
from compiler.fleet.placed_executor import PlacedExecutor, Wish
from compiler.fleet.trust import Trust
from compiler.fresh import is_expired, no_cache
from compiler.progress.events import Placed, Waiting
from compiler.records import medians
from worker.action import Cancelled
from worker.fleet.limits import NOBODY_SECONDS
from worker.fleet.protocol import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cache.digest import Digest
    from cache.remote.client import Client
    from cache.result import Result
    from compiler.fleet.here import Here
    from compiler.graph import Node
    from compiler.progress.events import Reporter
    from compiler.remote_cache import RemoteCache
    from compiler.session import Session
    from compiler.team_build import TeamBuild
    from worker.action import Action, Order
    from worker.library import LayerLibrary

MOST_AT_ONCE = 256
"""Steps of one build that are under way at the same time; each has a thread here, which mostly waits."""
LEAST_AT_ONCE = 64
"""The same for a small fleet: it may grow, and what the scheduler knows of it can place better."""
LOOK_SECONDS = 0.5
"""Between two looks whether workers have come."""


class ServerShelf:
    """A `Shelf`: one namespace of the server that the workers read from."""

    def __init__(self, client: Client, remote: RemoteCache, namespace: str) -> None:
        self._writer = BlobWriter(client, remote.store, LocalChunks(remote.store), remote.meter)
        self._namespace = namespace

    def missing(self, blobs: Sequence[Digest], cancelled: Callable[[], bool]) -> list[Digest]:
        names = {str(blob): blob for blob in blobs if blob.size}
        found = self._writer.missing(self._namespace, names, _check(cancelled))
        return [names[name] for name in found if name in names]

    def put(self, blobs: Sequence[Digest], cancelled: Callable[[], bool]) -> None:
        outgoing = [Outgoing(blob, str(blob)) for blob in dict.fromkeys(blobs)]
        self._writer.put(self._namespace, outgoing, _check(cancelled))


def _check(cancelled: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if cancelled():
            raise Cancelled

    return check


class Fleet:
    """An open stream to a scheduler. at_once: steps that are worth having under way at the same time."""

    def __init__(self, link: Link, slots: int, remote: RemoteCache, client: Client, namespace: str) -> None:
        self._link = link
        self._remote = remote
        self._client = client
        self._namespace = namespace
        self.slots = slots

    def at_once(self, jobs: int) -> int:
        return jobs if not self.has_workers else max(jobs, min(MOST_AT_ONCE, max(self.slots, LEAST_AT_ONCE) + jobs))

    def executor(self, here: Here, library: LayerLibrary, trusted: frozenset[str]) -> PlacedExecutor:
        shelf = ServerShelf(self._client, self._remote, self._namespace)
        inputs = Inputs(library, shelf)
        return PlacedExecutor(here, self._link, inputs, self._remote, Trust(self._namespace, trusted))

    @property
    def has_workers(self) -> bool:
        """Whether there is a worker, or was one. Until then all is made here."""
        return self._link.had_workers

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler went away for good."""
        return self._link.gave_up

    def close(self) -> None:
        """May be called twice."""
        self._link.close()


def open_fleet(remote: RemoteCache, project: str, *, insists: bool = False) -> Fleet | None:
    """The fleet of a server that was contacted; None if it has none, or none for us. It may be without workers so far.

    insists: nothing is to run on this machine. Then a server that has just gone and a fleet without workers are waited
    for a while, as they may be coming back; and None if none comes.
    """
    client, namespace = remote.client, remote.settings.write
    # What a worker made is read where it was written to.
    if client is None or not client.can.is_ours or client.can.function != "blake3":
        return None
    if namespace is None or namespace not in remote.settings.reads or not _may_execute(client, namespace):
        return None
    until = time.monotonic() + NOBODY_SECONDS
    while True:
        opening = fleet_pb2.OpenBuild(
            version=VERSION, build=os.urandom(16).hex(), instance_name=namespace, project=project
        )  # fmt: skip
        link = Link(client, opening, warn=lambda text: remote.tell("newer", text))
        opened = link.open()
        if opened is not None and (opened.workers or not insists):
            return Fleet(link, opened.slots, remote, client, namespace)
        if opened is not None:
            link.close()
        elif link.refused or not insists:
            return None
        if time.monotonic() >= until:
            return None
        time.sleep(LOOK_SECONDS)


def _may_execute(client: Client, namespace: str) -> bool:
    try:
        said = client.caller.call(client.team.Hello, team_pb2.HelloRequest(instance_name=namespace), tries=1)
    except (RemoteTrouble, grpc.RpcError):
        return False
    return {"read", "write", "execute"} <= {*said.scopes}


class Placing:
    """Executes steps of one session; may be called by several threads at once."""

    def __init__(
        self,
        executor: PlacedExecutor,
        session: Session,
        reporter: Reporter,
        team: TeamBuild,
        began: float,
        labels: Mapping[str, str],
    ) -> None:
        """began: when the build did, seconds since the epoch. labels: what workers must have for any of its steps; they
        go before what a step says."""
        self._labels = labels
        self._executor = executor
        self._session = session
        self._reporter = reporter
        self._team = team
        self._began = began
        self._seconds = medians(session.records.expected())
        self._critical = critical_paths(session.graph, self._seconds)

    def __call__(
        self, node: Node, action: Action, order: Order, on: Callable[[str], None], /
    ) -> tuple[Result, str, str]:
        """As `Place`."""
        session, report = self._session, self._reporter.report

        def begun(where: str, worker: str) -> None:
            on(worker)
            report(Placed(node.id, where, worker))

        wish = Wish(
            text=node.text,
            node=session.graph.secrets.shown(node.id),
            seconds=self._seconds.get(node.id),
            critical=self._critical.get(node.id, 0.0),
            memory=node.policy.memory,
            labels={**dict(node.policy.labels), **self._labels},
            anew=self._is_to_run_again(node, action.key),
            marks=tuple((name, mark) for name, mark in session.keys.marks(node)),
            on=lambda worker: begun(worker, worker),
            here=lambda why: begun(f"this machine: {why}", ""),
            waits=lambda reason: report(Waiting(node.id, reason)),
        )
        placed = self._executor.place(action, order, wish)
        if self._team.remote.strict and not wish.anew and is_expired(node, placed.result, self._began):
            # The server had one, of which nothing was known here.
            placed = self._executor.place(action, order, wish._replace(anew=True))
        if placed.promise is not None:
            session.lookup.promised[action.key] = placed.promise
            self._team.made_there.add(action.key)
        else:
            session.lookup.promised.pop(action.key, None)
        return placed.result, placed.where, placed.worker

    def _is_to_run_again(self, node: Node, key: str) -> bool:
        """Whether a result that the server has does not do."""
        known = self._session.lookup.by_content(key, ask=False)
        if known is not None and is_expired(node, known, self._began):
            return True
        return no_cache(node, self._session.options)
