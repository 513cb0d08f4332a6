"""A hundred workers and twenty builds in simulated time, with and without faults: everything ends, once, and soon."""

from __future__ import annotations

import random
import sys
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_builds import BASES, MadeBuild, lower_bound, make_build
from simulation import Fault, Figures, Simulation

from worker.fleet.limits import LEASE_SECONDS, MAX_ATTEMPTS
from worker.fleet.scheduler import Scheduler

WORKERS, BUILDS, NODES = 100, 20, 50


def builds_of(seed: int, shared: str = "") -> list[MadeBuild]:
    chance = random.Random(seed)
    graphs = 4 if shared else BUILDS
    seeds = [chance.random() for _ in range(graphs)]
    return [
        make_build(
            random.Random(seeds[number % graphs]), f"b{number}", f"p{number % 5}", NODES, number / 4,
            shared=f"{shared}{number % graphs}" if shared else "",
        )
        for number in range(BUILDS)
    ]  # fmt: skip


def simulate(builds: list[MadeBuild], faults: tuple[Fault, ...] = (), workers: int = WORKERS) -> Figures:
    boots = count(1)
    return Simulation(lambda: Scheduler(str(next(boots))), workers, 1, builds, faults, BASES).run()


def test_all_builds_end_close_to_the_bound() -> None:
    builds = builds_of(1)
    figures = simulate(builds)
    assert len(figures.builds) == BUILDS
    assert figures.alone == figures.refused == 0
    assert set(figures.leases) == {node.action for build in builds for node in build.nodes}
    assert figures.makespan <= 1.15 * lower_bound(builds, WORKERS)
    assert sum(figures.leases.values()) <= 1.02 * len(figures.leases), "few are given to a second worker"


def test_the_same_happens_again() -> None:
    assert simulate(builds_of(2)) == simulate(builds_of(2))


def test_equal_nodes_of_many_builds_run_once() -> None:
    builds = builds_of(3, "shared")
    figures = simulate(builds)
    shared = [action for action in figures.leases if action.startswith("shared")]
    assert len(shared) == 4 * (NODES // 3), "20 builds, four graphs, a third of each is shared"
    assert sum(figures.leases[action] for action in shared) <= len(shared) + 2


@pytest.mark.parametrize("seed", range(6))
def test_with_faults_every_build_ends(seed: int) -> None:
    chance = random.Random(seed)
    faults = [
        Fault(chance.uniform(0.0, 40.0), kind, chance.randrange(20), chance.choice((1.0, 10.0, 45.0)))
        for kind in ("dies", "cut", "cut", "cut", "hangs", "slow", "full", "full")
        for _ in range(3)
    ]
    faults.append(Fault(chance.uniform(5.0, 30.0), "restart"))
    builds = builds_of(seed, "shared" if seed % 2 else "")
    figures = simulate(builds, tuple(faults), workers=20)
    assert len(figures.builds) == BUILDS
    assert figures.alone == 0, "enough workers stay to make all of it"
    worst = lower_bound(builds, 20) + MAX_ATTEMPTS * (LEASE_SECONDS + 40)
    assert figures.makespan < 2 * worst
    again = sum(figures.leases.values()) - len(figures.leases)
    assert again < 100, "what was lost is made again, and no more"


def test_when_all_workers_die_clients_go_on_alone() -> None:
    faults = tuple(Fault(3.0, "dies", number) for number in range(5))
    figures = simulate(builds_of(4)[:3], faults, workers=5)
    assert len(figures.builds) == 3
    assert figures.alone > 0
