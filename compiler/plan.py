"""Plan: what is wanted, ready, running and done. A pure state machine: events in, commands out, no clock, no I/O."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from compiler.graph import ROOTFS
from compiler.needs import needed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.result import Result
    from compiler.graph import Graph


class Begin(NamedTuple):
    """Command: find or make this node's result."""

    node: str


class Stop(NamedTuple):
    """Command: nobody wants what is still running."""


class Complete(NamedTuple):
    """Command: all is done; `ok` unless a node failed."""

    ok: bool


Command = Begin | Stop | Complete


class Done(NamedTuple):
    """Event: a node has its result."""

    node: str
    result: Result


class Broken(NamedTuple):
    """Event: a node failed, or was cancelled after a Stop."""

    node: str


class Widened(NamedTuple):
    """Event: so many nodes may run at once from now on, if that is more than before."""

    slots: int


Event = Done | Broken | Widened


class Plan:
    """Hands out nodes whose inputs are done, the longest expected path to the target first.

    Equal priorities go in the graph's order, which is the Dockerfile's, so that two runs do the same.
    """

    def __init__(self, graph: Graph, hits: Mapping[str, Result], expected: Mapping[str, float], slots: int) -> None:
        """hits: results that are known. expected: seconds a step may take. slots: how many may run at once at first."""
        self._graph = graph
        self._slots = slots
        self.results: dict[str, Result] = dict(hits)
        self.wanted = needed(graph, hits)
        self._order = {node.id: place for place, node in enumerate(graph)}
        self._missing: dict[str, set[str]] = {}
        self._users: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []
        self.running: set[str] = set()
        self._failed = False
        steps = [node.id for node in graph if node.is_step and node.id in self.wanted and node.id not in hits]
        open_below = self._open_below()
        for name in steps:
            before = {found for other in graph[name].inputs if (found := open_below[other])}
            self._missing[name] = before
            for other in before:
                self._users.setdefault(other, []).append(name)
        self._priority = self._priorities(steps, expected)
        for name in steps:
            if not self._missing[name]:
                self._add_ready(name)

    def _open_below(self) -> dict[str, str]:
        """For each node the step without a result that its layers wait for, itself perhaps; "" for none.

        A known result's own layers are known; those below it may still have to be made.
        """
        found: dict[str, str] = {}
        for node in self._graph:
            if node.is_step and node.id not in self.results:
                found[node.id] = node.id
            else:
                found[node.id] = found[node.inputs[ROOTFS]] if node.inputs else ""
        return found

    def _add_ready(self, name: str) -> None:
        heapq.heappush(self._ready, (-self._priority[name], self._order[name], name))

    def _priorities(self, steps: list[str], expected: Mapping[str, float]) -> dict[str, float]:
        priority: dict[str, float] = {}
        for name in reversed(steps):
            after = max((priority[user] for user in self._users.get(name, ())), default=0.0)
            priority[name] = expected.get(name, 0.0) + after
        return priority

    def start(self) -> list[Command]:
        """The first commands."""
        return self._commands()

    def handle(self, event: Event) -> list[Command]:
        """What follows from an event. ValueError for one about a node that is not running."""
        if isinstance(event, Widened):
            self._slots = max(self._slots, event.slots)
            return self._commands()
        if event.node not in self.running:
            raise ValueError(f"{event} but running are {sorted(self.running)}")
        self.running.remove(event.node)
        commands: list[Command] = []
        if isinstance(event, Done):
            self.results[event.node] = event.result
            for user in self._users.get(event.node, ()):
                self._missing[user].discard(event.node)
                if not self._missing[user]:
                    self._add_ready(user)
        elif not self._failed:
            self._failed = True
            if self.running:
                commands.append(Stop())
        return commands + self._commands()

    def _commands(self) -> list[Command]:
        if self._failed:
            return [] if self.running else [Complete(False)]
        commands: list[Command] = []
        while self._ready and len(self.running) < self._slots:
            _, _, name = heapq.heappop(self._ready)
            self.running.add(name)
            commands.append(Begin(name))
        if not commands and not self.running:
            commands.append(Complete(True))
        return commands
