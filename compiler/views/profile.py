"""Profile: how many steps run at once over the time of a build, as numbers and as one line of bars."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.schedule import RunSpan

BARS = "▁▂▃▄▅▆▇█"


class Period(NamedTuple):
    """A time in which as many steps run. start, end: seconds from the start of the build."""

    start: float
    end: float
    running: int


def profile(spans: Sequence[RunSpan]) -> tuple[Period, ...]:
    """Without gaps from the first start to the last end; steps that take no time are not seen."""
    changes: dict[float, int] = {}
    for span in spans:
        if span.end > span.start:
            changes[span.start] = changes.get(span.start, 0) + 1
            changes[span.end] = changes.get(span.end, 0) - 1
    times = sorted(time for time, change in changes.items() if change)
    periods = []
    running = 0
    for start, end in itertools.pairwise(times):
        running += changes[start]
        periods.append(Period(start, end, running))
    return tuple(periods)


def bars(periods: Sequence[Period], width: int, *, unicode: bool = True) -> str:
    """One character for each of `width` equal times: how many ran on average, a full bar being the most at once.

    Without unicode: the number itself, `+` above nine.
    """
    if not periods:
        return ""
    start, length = periods[0].start, periods[-1].end - periods[0].start
    most = max(period.running for period in periods)
    text = []
    for place in range(width):
        low, high = start + length * place / width, start + length * (place + 1) / width
        busy = sum(
            period.running * (min(high, period.end) - max(low, period.start))
            for period in periods
            if period.start < high and period.end > low
        )
        average = busy / (high - low)
        if not unicode:
            text.append(str(round(average)) if average < 9.5 else "+")
        elif average < 0.01:
            text.append(" ")
        else:
            text.append(BARS[min(len(BARS) - 1, max(0, round(average / most * len(BARS)) - 1))])
    return "".join(text)
