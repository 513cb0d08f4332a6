"""Lanes: bars of one row that overlap stand in lanes below each other."""

from __future__ import annotations

import bisect
import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLD_SECONDS = 0.1
"""That news from a worker may take, with the log of a step."""


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The lane of each, from 0: the uppermost in which nothing else is going on. spans: starts and ends, in order of
    the starts; what begins when another ends may follow it in its lane."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found: list[int] = []
    for start, end in spans:
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        found.append(lane)
        heapq.heappush(busy, (end, lane))
    return found


def settled(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of one worker's bars, in order of their starts: its next action is told of while the end of the one before is
    still on its way, so that one ends where the next begins, if they overlap by less than that takes and by less than
    half."""
    starts = [start for start, _ in spans]
    found = []
    for number, (start, end) in enumerate(spans):
        after = bisect.bisect_left(starts, end - min(TOLD_SECONDS, (end - start) / 2))
        while after < len(starts) and starts[after] <= start:
            after += 1
        if number < after < len(starts) and starts[after] < end:
            end = starts[after]
        found.append((start, end))
    return found
