"""The fleet's scheduler in simulated time: decisions a second, how close to the best, against first come first served.

Usage: python -m bench.scheduler [--workers N] [--builds N] [--nodes N] [--seed N]; exits 1 if a limit is broken.
Durations are as measured of the example builds (tests/fleet/made_builds.py). The time of the scheduler itself is what
its thread computed, so that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from tests.fleet.made_builds import BASES, RUNS_ONLY, MadeBuild, lower_bound, make_build
from tests.fleet.simulation import Figures, Policy, Simulation
from worker.fleet.commands import Lease, Settle
from worker.fleet.events import Finished, Wanted, WorkerJoined
from worker.fleet.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.fleet.commands import Command
    from worker.fleet.events import Event

MAX_RATIO = 1.15
"""Makespan by the bound that no schedule beats, with layers moved in no time."""
MIN_DECISIONS = 1000.0
"""A second, of all that the scheduler does for one action: wanted, given, renewed, finished, layers."""
MAX_SLOWDOWN = 2.0
"""Of a small build beside a large one, against alone."""
PEOPLE = 20


class FirstCome:
    """What it is compared with: actions go in the order in which they are wanted to the worker that is free longest."""

    def __init__(self) -> None:
        self._free: deque[str] = deque()
        self._queue: deque[str] = deque()
        self._builds: dict[str, list[str]] = {}
        self._leases: dict[str, str] = {}
        self._numbers = count(1)

    def handle(self, event: Event) -> list[Command]:
        """As the scheduler's."""
        commands: list[Command] = []
        match event:
            case WorkerJoined():
                self._free.extend([event.worker] * event.slots)
            case Wanted():
                if event.action not in self._builds:
                    self._queue.append(event.action)
                self._builds.setdefault(event.action, []).append(event.build)
            case Finished():
                action = self._leases.pop(event.lease)
                self._free.append(event.worker)
                commands.append(Settle(action, event.lease, event.worker, tuple(self._builds.pop(action))))
        while self._free and self._queue:
            lease, action = f"first.{next(self._numbers)}", self._queue.popleft()
            self._leases[lease] = action
            commands.append(Lease(self._free.popleft(), lease, action, 0.0))
        return commands


class Timed:
    """A policy, and the seconds that its thread computed, in all and for the event that took longest."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seconds = 0.0
        self.longest = 0.0

    def handle(self, event: Event) -> list[Command]:
        """The policy's answer."""
        started = time.thread_time()
        commands = self._policy.handle(event)
        seconds = time.thread_time() - started
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        return commands


class Run(NamedTuple):
    """timed: the policy's own time."""

    figures: Figures
    timed: Timed


def simulate(policy: Callable[[], Policy], workers: int, builds: list[MadeBuild]) -> Run:
    """Workers of one slot, all cold."""
    timed = Timed(policy())
    return Run(Simulation(lambda: timed, workers, 1, builds, (), BASES).run(), timed)


def compare(title: str, workers: int, builds: list[MadeBuild]) -> tuple[float, float]:
    """Both policies on the same builds. (ratio to the bound, decisions a second) of the scheduler."""
    bound = lower_bound(builds, workers)
    paths = {build.build: max(build.critical()) for build in builds}
    print(f"\n{title}: {workers} workers, {len(builds)} builds of {len(builds[0].nodes)} nodes; bound {bound:.1f} s")
    ratios = []
    policies: tuple[tuple[str, Callable[[], Policy]], ...] = (("scheduler", Scheduler), ("first come", FirstCome))
    for name, policy in policies:
        figures, timed = simulate(policy, workers, builds)
        mean = statistics.mean(seconds / paths[build] for build, seconds in figures.builds.items())
        ratios.append((figures.makespan / bound, figures.decisions / timed.seconds))
        print(
            f"  {name:10}  makespan {figures.makespan:6.1f} s = {figures.makespan / bound:4.2f} of the bound,"
            f" a build {mean:5.2f} of its path, {figures.moved / 1e9:4.0f} GB moved;"
            f" {figures.decisions / timed.seconds:6.0f} decisions/s, {timed.seconds / figures.events * 1e6:3.0f} µs"
            f" an event, longest {timed.longest * 1e3:.1f} ms"
        )
    return ratios[0]


def fairness(chance: random.Random, workers: int) -> float:
    """A large build has the whole fleet when a small one of somebody else comes. The small one's slowdown."""
    large = make_build(chance, "large", "ann", workers * 20, 0.0, RUNS_ONLY, chain=0.3)
    small = make_build(chance, "small", "ben", 20, 60.0, RUNS_ONLY)
    print(f"\na large build of {len(large.nodes)} nodes, a small one of 20 after 60 s, {workers} workers: slowdowns")
    slowdowns = []
    policies: tuple[tuple[str, Callable[[], Policy]], ...] = (("scheduler", Scheduler), ("first come", FirstCome))
    for name, policy in policies:
        together = simulate(policy, workers, [large, small]).figures.builds
        alone = {each.build: simulate(policy, workers, [each]).figures.builds[each.build] for each in (large, small)}
        slow = {build: together[build] / alone[build] for build in together}
        slowdowns.append(slow["small"])
        print(f"  {name:10}  large {slow['large']:4.2f}, small {slow['small']:5.2f} of alone")
    return slowdowns[0]


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    numbers, nodes = range(arguments.builds), arguments.nodes
    builds = [make_build(chance, f"b{number}", f"p{number % PEOPLE}", nodes) for number in numbers]
    heavy = [make_build(chance, f"h{number}", f"p{number % PEOPLE}", nodes, 0.0, RUNS_ONLY) for number in numbers]
    ratio, decisions = compare("as measured", arguments.workers, builds)
    heavy_ratio, _ = compare("RUN steps only", arguments.workers, heavy)
    compare("a fleet that is too small", max(1, arguments.workers // 10), builds)
    slowdown = fairness(chance, max(1, arguments.workers // 10))
    broken = [
        f"{name} {value:.2f}, limit {limit}"
        for name, value, limit, good in (
            ("makespan by the bound", ratio, MAX_RATIO, ratio <= MAX_RATIO),
            ("makespan by the bound, RUN steps only", heavy_ratio, MAX_RATIO, heavy_ratio <= MAX_RATIO),
            ("decisions a second", decisions, MIN_DECISIONS, decisions >= MIN_DECISIONS),
            ("slowdown of a small build", slowdown, MAX_SLOWDOWN, slowdown <= MAX_SLOWDOWN),
        )
        if not good
    ]
    print("\n" + ("; ".join(broken) or "all within the limits"))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
