"""Schedule: when each step of a plan would run, by letting the plan itself run against a clock that only counts."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from cache.result import Result
from compiler.plan import Begin, Command, Done, Plan

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from compiler.graph import Graph

_NOTHING = Result(None, None, 0.0, 0.0, "")


class RunSpan(NamedTuple):
    """One step's run. start, end: seconds from the start of the build."""

    node: str
    start: float
    end: float


class Schedule(NamedTuple):
    """spans: the run of every step that has no result, in order of their starts. makers: of steps that are the same,
    each but the one that begins first → that one, which makes the result of all."""

    spans: tuple[RunSpan, ...]
    makers: dict[str, str]


def schedule(
    graph: Graph,
    hits: Mapping[str, Result],
    expected: Mapping[str, float],
    slots: int,
    twins: Mapping[str, str] | None = None,
    found: Container[str] = (),
) -> Schedule:
    """A step without an expectation takes no time.

    hits: results that the build starts with. twins: a step → the first one that is the same. found: steps whose result
    is found without running them, once it is their turn.
    """
    plan = Plan(graph, hits, expected, slots)
    groups = twins or {}
    running: list[tuple[float, int, str]] = []
    spans: list[RunSpan] = []
    ends: dict[str, float] = {}
    begun: dict[str, str] = {}
    makers: dict[str, str] = {}
    now = 0.0

    def begin(commands: list[Command]) -> None:
        for command in commands:
            if not isinstance(command, Begin):
                continue
            name = command.node
            maker = begun.setdefault(groups.get(name, name), name)
            if maker != name:
                # As in a build it waits in its slot until the other has ended.
                makers[name] = maker
                end = max(now, ends[maker])
            elif name in found:
                end = now
            else:
                end = now + expected.get(name, 0.0)
                spans.append(RunSpan(name, now, end))
            ends[name] = end
            heapq.heappush(running, (end, len(ends), name))

    begin(plan.start())
    while running:
        now, _, node = heapq.heappop(running)
        begin(plan.handle(Done(node, _NOTHING)))
    return Schedule(tuple(spans), makers)
