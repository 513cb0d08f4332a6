"""Simulation: a fleet and its clients in simulated time around a scheduler, with faults, checked at every step."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from worker.fleet.commands import GiveUp, Lease, Refuse, Revoke, Settle
from worker.fleet.events import (
    BuildClosed,
    BuildOpened,
    Finished,
    GaveBack,
    Held,
    Renewed,
    Tick,
    Wanted,
    WorkerJoined,
    WorkerLayers,
    WorkerLeft,
)
from worker.fleet.limits import BANDWIDTH, RENEW_SECONDS
from worker.fleet.needs import Needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fleet.made_builds import MadeBuild, MadeNode
    from worker.fleet.commands import Command
    from worker.fleet.events import Event

MEMORY = 8 << 30
PLATFORM = "linux/amd64"


class Policy(Protocol):
    """What is simulated."""

    def handle(self, event: Event) -> list[Command]:
        """As the scheduler's."""


class Fault(NamedTuple):
    """at: seconds. kind: dies, cut (for `seconds`), hangs, slow (what it begins from now on takes ten times as long),
    full (it gives back what it has), restart (of the scheduler). worker: its place."""

    at: float
    kind: str
    worker: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class _Run:
    """One lease on a worker. ends: when it is done."""

    lease: str
    action: str
    started: float
    ends: float


@dataclass(eq=False)
class _Worker:
    """unsaid: what ended while it was cut off."""

    name: str
    slots: int
    layers: set[str] = field(default_factory=set)
    runs: dict[str, _Run] = field(default_factory=dict)
    unsaid: dict[str, _Run] = field(default_factory=dict)
    connected: bool = True
    dead: bool = False
    hangs: bool = False
    slowness: float = 1.0


class Figures(NamedTuple):
    """makespan: seconds. builds: seconds from arrival to end, by build. leases: given, by action. moved: bytes.
    events, decisions: handled, and leases given. alone: actions that clients made themselves."""

    makespan: float
    builds: dict[str, float]
    leases: Counter[str]
    moved: int
    events: int
    decisions: int
    alone: int
    refused: int


class Simulation:
    """Everything happens at its time; nothing takes time but fetching and executing."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        workers: int,
        slots: int,
        builds: list[MadeBuild],
        faults: tuple[Fault, ...] = (),
        bases: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        """policy: makes one, also after a restart of it. bases: bytes of the layers of base images."""
        self._make_policy = policy
        self._faulty = bool(faults)
        self._policy = policy()
        self._workers = {f"w{number}": _Worker(f"w{number}", slots) for number in range(workers)}
        self._builds = {build.build: build for build in builds}
        self._bases = bases
        self._paths = {build.build: build.expected_critical() for build in builds}
        self._nodes = {node.action: node for build in builds for node in build.nodes}
        self._rootfs: dict[str, dict[str, int]] = {}
        for build in builds:
            for node in build.nodes:
                if node.action not in self._rootfs:
                    self._rootfs[node.action] = self._inputs_of(build, node)
        self._users = {
            (build.build, place): [user for user, node in enumerate(build.nodes) if place in node.inputs]
            for build in builds
            for place in range(len(build.nodes))
        }
        self._places = {(build.build, node.action): place for build in builds for place, node in enumerate(build.nodes)}
        self._open: dict[str, dict[str, None]] = {}
        self._missing: dict[str, list[int]] = {}
        self._left = {build.build: len(build.nodes) for build in builds}
        self._store: set[str] = set()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.now = 0.0
        self._ended: dict[str, float] = {}
        self._leases: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        for fault in faults:
            self._at(fault.at, lambda fault=fault: self._fail(fault))  # type: ignore[misc]

    def _inputs_of(self, build: MadeBuild, node: MadeNode) -> dict[str, int]:
        """Layers that it needs, with bytes: its rootfs, and what it copies from."""
        if not node.inputs:
            return {f"base{node.base}/{number}": size for number, size in enumerate(self._bases[node.base])}
        first, *others = (build.nodes[place] for place in node.inputs)
        found = dict(self._rootfs[first.action])
        for other in (first, *others):
            found[other.action] = other.size
        return found

    def run(self) -> Figures:
        """Until every build has ended."""
        for name in self._workers:
            self._join(name)
        for build in self._builds.values():
            self._at(build.arrival, lambda build=build: self._begin(build))  # type: ignore[misc]
        self._at(1.0, self._tick)
        while len(self._ended) < len(self._builds):
            self.now, _, step = heapq.heappop(self._agenda)
            assert self.now < 100_000, f"without an end: {self._left}"
            step()
        return Figures(
            self.now,
            {name: ended - self._builds[name].arrival for name, ended in self._ended.items()},
            self._leases,
            self._counts["moved"],
            self._counts["events"],
            self._counts["decisions"],
            self._counts["alone"],
            self._counts["refused"],
        )

    def _at(self, when: float, step: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._agenda, (when, self._number, step))

    def _tick(self) -> None:
        self._say(Tick(self.now))
        self._at(self.now + 1.0, self._tick)

    def _say(self, event: Event) -> None:
        self._counts["events"] += 1
        for command in self._policy.handle(event):
            self._obey(command)

    # Clients

    def _begin(self, build: MadeBuild) -> None:
        self._open[build.build] = {}
        self._missing[build.build] = [len(node.inputs) for node in build.nodes]
        self._say(BuildOpened(self.now, build.build, build.person))
        for place, node in enumerate(build.nodes):
            if not node.inputs:
                self._want(build.build, place)

    def _want(self, build: str, place: int) -> None:
        node = self._builds[build].nodes[place]
        if node.action in self._store:
            self._get(build, node.action)
            return
        self._open[build][node.action] = None
        layers = tuple(self._rootfs[node.action].items())
        needs = Needs(PLATFORM, 64 << 20, layers, (), node.expected, self._paths[build][place], {})
        # A message of its own, so that commands are carried out one event after the other.
        self._at(self.now, lambda: self._say(Wanted(self.now, build, node.action, needs)))

    def _get(self, build: str, action: str) -> None:
        """A build has a result."""
        self._open[build].pop(action, None)
        self._left[build] -= 1
        for user in self._users[build, self._places[build, action]]:
            self._missing[build][user] -= 1
            if not self._missing[build][user]:
                self._want(build, user)
        if not self._left[build]:
            self._ended[build] = self.now
            del self._open[build]
            self._at(self.now, lambda: self._say(BuildClosed(self.now, build)))

    # Commands

    def _obey(self, command: Command) -> None:
        match command:
            case Lease():
                self._give(command)
            case Revoke():
                worker = self._workers[command.worker]
                assert worker.connected, f"{command} to one that left"
                worker.runs.pop(command.lease, None)
                worker.unsaid.pop(command.lease, None)
            case Settle():
                assert self._faulty or command.action not in self._store, f"{command.action} is settled twice"
                self._store.add(command.action)
                for build in command.builds:
                    assert command.action in self._open[build], f"{build} gets what it does not want: {command}"
                    self._get(build, command.action)
            case GiveUp():
                self._counts["alone"] += 1
                for build in command.builds:
                    seconds = self._nodes[command.action].seconds
                    self._at(self.now + seconds, lambda build=build: self._made_alone(build, command.action))  # type: ignore[misc]
            case Refuse():
                self._counts["refused"] += 1

    def _made_alone(self, build: str, action: str) -> None:
        self._store.add(action)
        self._get(build, action)

    def _give(self, command: Lease) -> None:
        worker = self._workers[command.worker]
        assert worker.connected, f"{command} to one that left"
        assert len(worker.runs) < worker.slots, f"{command.worker} has no slot"
        if not self._faulty:
            assert command.action not in self._store, f"{command.action} is settled already"
        self._leases[command.action] += 1
        self._counts["decisions"] += 1
        missing = {name: size for name, size in self._rootfs[command.action].items() if name not in worker.layers}
        self._counts["moved"] += sum(missing.values())
        fetched = self.now + sum(missing.values()) / BANDWIDTH
        ends = fetched + self._nodes[command.action].seconds * worker.slowness
        run = worker.runs[command.lease] = _Run(command.lease, command.action, self.now, ends)
        if missing:
            self._at(fetched, lambda: self._fetched(worker, run, missing))
        self._at(ends, lambda: self._end(worker, run))
        if len(worker.runs) == 1:
            self._at(self.now + RENEW_SECONDS, lambda: self._renew(worker))

    # Workers

    def _join(self, name: str) -> None:
        worker = self._workers[name]
        worker.connected = True
        held = [
            Held(run.lease, run.action, self.now - run.started)
            for run in (*worker.runs.values(), *worker.unsaid.values())
        ]
        layers, memory = frozenset(worker.layers), worker.slots << 30
        self._say(
            WorkerJoined(
                self.now, name, name, worker.slots, memory, frozenset((PLATFORM,)), {}, layers, frozenset(), tuple(held)
            )
        )
        unsaid, worker.unsaid = worker.unsaid, {}
        for run in unsaid.values():
            self._say(Finished(self.now, name, run.lease, True, (run.action,)))
        self._renew(worker)

    def _renew(self, worker: _Worker) -> None:
        if worker.runs and worker.connected and not worker.hangs:
            self._say(Renewed(self.now, worker.name, tuple(worker.runs)))
            self._at(self.now + RENEW_SECONDS, lambda: self._renew(worker))

    def _fetched(self, worker: _Worker, run: _Run, layers: dict[str, int]) -> None:
        if worker.runs.get(run.lease) is run and not worker.hangs:
            worker.layers.update(layers)
            if worker.connected:
                self._say(WorkerLayers(self.now, worker.name, frozenset(layers)))

    def _end(self, worker: _Worker, run: _Run) -> None:
        if worker.runs.get(run.lease) is not run or worker.hangs:
            return
        del worker.runs[run.lease]
        worker.layers.add(run.action)
        if worker.connected:
            self._say(Finished(self.now, worker.name, run.lease, True, (run.action,)))
        else:
            worker.unsaid[run.lease] = run

    # Faults

    def _fail(self, fault: Fault) -> None:
        worker = self._workers[f"w{fault.worker}"]
        if fault.kind == "restart":
            self._restart()
        elif worker.dead or not worker.connected:
            return
        elif fault.kind == "dies":
            worker.dead, worker.connected = True, False
            worker.runs.clear()
            self._say(WorkerLeft(self.now, worker.name))
        elif fault.kind == "cut":
            self._cut(worker, fault.seconds)
            self._say(WorkerLeft(self.now, worker.name))
        elif fault.kind == "hangs":
            worker.hangs = True
        elif fault.kind == "slow":
            worker.slowness = 10.0
        else:
            runs, worker.runs = worker.runs, {}
            for run in runs.values():
                self._say(GaveBack(self.now, worker.name, run.lease, "no space left"))

    def _cut(self, worker: _Worker, seconds: float) -> None:
        worker.connected = False
        self._at(self.now + seconds, lambda: self._join(worker.name))

    def _restart(self) -> None:
        """Nothing is left of what the scheduler knew; everybody comes back within two seconds."""
        self._policy = self._make_policy()
        for number, worker in enumerate(self._workers.values()):
            if worker.connected:
                self._cut(worker, 0.1 + number % 20 / 10)
        for number, build in enumerate(self._open):
            self._at(self.now + number % 10 / 5, lambda build=build: self._reopen(build))  # type: ignore[misc]

    def _reopen(self, build: str) -> None:
        if build in self._open:
            self._say(BuildOpened(self.now, build, self._builds[build].person))
            for action in tuple(self._open[build]):
                self._want(build, self._places[build, action])
