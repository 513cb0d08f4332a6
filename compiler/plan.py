"""Plan: what is wanted, ready, running and done. A pure state machine: events in, commands out, no clock, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


Event = Done | Broken


class Plan:
    """Hands out nodes whose inputs are done, the longest expected path to the target first.

    Equal priorities go in the graph's order, which is the Dockerfile's, so that two runs do the same.
    """

    def __init__(self, graph: Graph, hits: Mapping[str, Result], expected: Mapping[str, float], slots: int) -> None:
        """hits: results that are known. expected: seconds a step may take. slots: how many may run at once."""
        self._graph = graph
        self._slots = slots
        self.results: dict[str, Result] = dict(hits)
        self.wanted = needed(graph, hits)
        self._order = {node.id: place for place, node in enumerate(graph)}
        self._missing: dict[str, set[str]] = {}
        self._users: dict[str, list[str]] = {}
        self._ready: set[str] = set()
        self.running: set[str] = set()
        self._failed = False
        steps = [node.id for node in graph if node.is_step and node.id in self.wanted and node.id not in hits]
        for name in steps:
            before = self._steps_before(name)
            self._missing[name] = before
            for other in before:
                self._users.setdefault(other, []).append(name)
            if not before:
                self._ready.add(name)
        self._priority = self._priorities(steps, expected)

    def _steps_before(self, name: str) -> set[str]:
        """The steps without a result that a step waits for: along its inputs, through stages and known steps."""
        found: set[str] = set()
        seen: set[str] = set()
        pending = list(self._graph[name].inputs)
        while pending:
            node = self._graph[pending.pop()]
            if node.id in seen:
                continue
            seen.add(node.id)
            if node.is_step and node.id not in self.results:
                found.add(node.id)
            else:
                # A known result's own layers are known; those below it may still have to be made.
                pending += node.inputs[:1]
        return found

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
        if event.node not in self.running:
            raise ValueError(f"{event} but running are {sorted(self.running)}")
        self.running.remove(event.node)
        commands: list[Command] = []
        if isinstance(event, Done):
            self.results[event.node] = event.result
            for user in self._users.get(event.node, ()):
                self._missing[user].discard(event.node)
                if not self._missing[user]:
                    self._ready.add(user)
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
            name = min(self._ready, key=lambda name: (-self._priority[name], self._order[name]))
            self._ready.remove(name)
            self.running.add(name)
            commands.append(Begin(name))
        if not commands and not self.running:
            commands.append(Complete(True))
        return commands
