"""Builds that are made up for simulations: random graphs, with durations as they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

MEASURED = (
    0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.002, 0.003, 0.005,
    0.005, 0.006, 0.007, 0.013, 0.026, 0.046, 0.073, 0.077, 0.103, 0.115, 0.139, 0.162, 0.299, 0.385, 11.8, 21.1, 32.0,
)  # fmt: skip
"""Seconds: each second one, in order, of the 65 steps of ten builds of examples/demo and examples/nginx with
`--no-cache`, on a machine with two cores that was busy. Most steps copy files; those that compile or install take all of
the time."""
RUNS_ONLY = (0.06, 0.1, 0.13, 0.2, 0.31, 0.385, 8.4, 11.8, 14.1, 21.1, 21.9, 26.3, 32.0)
"""Of those the RUN steps: a build that is all compiling."""
BASES = ((75_000_000,), (120_000_000, 50_000_000), (30_000_000,), (340_000_000, 80_000_000, 20_000_000))
"""Bytes of the layers of base images."""


class MadeNode(NamedTuple):
    """inputs: places in its build of the nodes it stands on, the one that its rootfs comes from first. base: the base
    image that its stage is from. seconds: it takes, on a usual worker. expected: None if nobody ever timed it. size:
    bytes of its layer."""

    action: str
    inputs: tuple[int, ...]
    base: int
    seconds: float
    expected: float | None
    size: int


class MadeBuild(NamedTuple):
    """arrival: when it begins. nodes: each after its inputs; all of them are wanted."""

    build: str
    person: str
    arrival: float
    nodes: tuple[MadeNode, ...]

    def critical(self) -> list[float]:
        """For each node the seconds from its start to the build's end, with all the workers one could wish for."""
        return _paths(self, [node.seconds for node in self.nodes])

    def expected_critical(self) -> list[float]:
        """The same, as the client knows it: what nobody timed counts nothing."""
        return _paths(self, [node.expected or 0.0 for node in self.nodes])


def _paths(build: MadeBuild, seconds: list[float]) -> list[float]:
    paths = list(seconds)
    for place in range(len(build.nodes) - 1, -1, -1):
        for other in build.nodes[place].inputs:
            paths[other] = max(paths[other], seconds[other] + paths[place])
    return paths


def duration(chance: random.Random, measured: tuple[float, ...] = MEASURED) -> float:
    """One of the distribution: between two neighbours all are as likely, by their ratio."""
    at = chance.random() * (len(measured) - 1)
    low, high = measured[int(at)], measured[int(at) + 1]
    return float(low * (high / low) ** (at - int(at)))


def make_build(
    chance: random.Random,
    name: str,
    person: str,
    nodes: int,
    arrival: float = 0.0,
    measured: tuple[float, ...] = MEASURED,
    shared: str = "",
    chain: float = 0.7,
) -> MadeBuild:
    """A random graph of stages that copy from each other, and a last node that needs every end. shared: the first third
    has this name in place of the build's: equal actions of all builds that are made with the same chances. chain: how
    likely a node goes on where another one ended; 0 gives stages of one node each."""
    made: list[MadeNode] = []
    base = chance.randrange(len(BASES))
    for place in range(nodes - 1):
        inputs: list[int] = []
        if made and chance.random() < chain:
            inputs.append(max(0, place - 1 - int(chance.expovariate(0.5))))
        if made and chance.random() < chain / 3:
            inputs.append(chance.randrange(place))
        stage = made[inputs[0]].base if inputs else chance.choice((base, chance.randrange(len(BASES))))
        seconds = duration(chance, measured)
        # What one run takes differs from the median of earlier ones; one step in ten is new.
        expected = seconds * chance.lognormvariate(0.0, 0.25) if chance.random() < 0.9 else None
        size = int(chance.lognormvariate(14.0, 2.0))
        owner = shared if shared and place < nodes // 3 else name
        made.append(MadeNode(f"{owner}/{place}", tuple(dict.fromkeys(inputs)), stage, seconds, expected, size))
    used = {other for node in made for other in node.inputs}
    ends = tuple(place for place in range(len(made)) if place not in used)
    made.append(MadeNode(f"{name}/{nodes - 1}", ends, base, 0.01, 0.01, 1000))
    return MadeBuild(name, person, arrival, tuple(made))


def lower_bound(builds: list[MadeBuild], slots: int) -> float:
    """Seconds below which no schedule gets, though layers moved in no time: the longest path, or the work by slots."""
    actions = {node.action: node.seconds for build in builds for node in build.nodes}
    path = max(build.arrival + max(build.critical()) for build in builds)
    return max(path, min(build.arrival for build in builds) + sum(actions.values()) / slots)
