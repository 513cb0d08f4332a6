"""Schedule: when each step of a plan would run, by letting the plan itself run against a clock that only counts."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from cache.result import Result
from compiler.plan import Begin, Command, Done, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiler.graph import Graph

_NOTHING = Result(None, None, 0.0, 0.0, "")


class RunSpan(NamedTuple):
    """One step's run. start, end: seconds from the start of the build."""

    node: str
    start: float
    end: float


def schedule(
    graph: Graph, hits: Mapping[str, Result], expected: Mapping[str, float], slots: int
) -> tuple[RunSpan, ...]:
    """The run of every step that has no result, in order of their starts; one without an expectation takes no time."""
    plan = Plan(graph, hits, expected, slots)
    running: list[tuple[float, int, str]] = []
    spans: list[RunSpan] = []
    now = 0.0

    def begin(commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Begin):
                end = now + expected.get(command.node, 0.0)
                heapq.heappush(running, (end, len(spans), command.node))
                spans.append(RunSpan(command.node, now, end))

    begin(plan.start())
    while running:
        now, _, node = heapq.heappop(running)
        begin(plan.handle(Done(node, _NOTHING)))
    return tuple(spans)
