"""Arrange: the outlooks of a forecast as every view shows them, sources first, then stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compiler.graph import ROOTFS

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook


class StageGroup(NamedTuple):
    """One stage. end: the outlook of its stage node. steps: in order."""

    name: str
    end: Outlook
    steps: tuple[Outlook, ...]


class Arranged(NamedTuple):
    """by_id: all of them. sources: images, contexts and the like. stages: each behind those that it takes from."""

    by_id: dict[str, Outlook]
    sources: tuple[Outlook, ...]
    stages: tuple[StageGroup, ...]


def arrange(forecast: Forecast) -> Arranged:
    """Stages in the order in which they end, so that each comes after those that it takes from."""
    ends = {outlook.node.stage: outlook for outlook in forecast.outlooks if outlook.node.kind == "stage"}
    steps: dict[str, list[Outlook]] = {name: [] for name in ends}
    sources = []
    for outlook in forecast.outlooks:
        if outlook.node.is_step:
            steps[outlook.node.stage].append(outlook)
        elif outlook.node.kind != "stage":
            sources.append(outlook)
    stages = tuple(StageGroup(name, end, tuple(steps[name])) for name, end in ends.items())
    return Arranged({outlook.node.id: outlook for outlook in forecast.outlooks}, tuple(sources), stages)


def waits_for_the_step_before(outlook: Outlook, by_id: dict[str, Outlook]) -> bool:
    """Whether a node is open only because the step right before it in its stage is, which goes without saying."""
    waits_for = [name for name in outlook.node.inputs if by_id[name].is_open]
    if not waits_for or waits_for != [outlook.node.inputs[ROOTFS]]:
        return False
    before = by_id[waits_for[0]].node
    return before.is_step and before.stage == outlook.node.stage


def critical_edges(forecast: Forecast, target: str) -> set[tuple[str, str]]:
    """(input, node) of each edge on the critical path, also those that lead through stages, up to the target."""
    by_id = {outlook.node.id: outlook for outlook in forecast.outlooks}
    edges: set[tuple[str, str]] = set()
    for before, after in zip(forecast.critical_path, [*forecast.critical_path[1:], target], strict=False):
        # Back from `after`: user[x] is what takes from x on the way.
        user = {after: ""}
        waiting = [after]
        while waiting and before not in user:
            name = waiting.pop(0)
            # What takes from a step that is the same as another waits for that one.
            for other in (*by_id[name].node.inputs, by_id[name].same_as):
                if other and other not in user:
                    user[other] = name
                    waiting.append(other)
        name = before
        while user.get(name):
            edges.add((name, user[name]))
            name = user[name]
    return edges
