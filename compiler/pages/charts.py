"""Charts: the hit rate over hours and days as SVG that needs neither scripts nor styles of its own."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from compiler.pages.figures import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOURS, DAYS = 48, 30
WIDTH, LEFT, RIGHT = 420, 42, 18
RATE_TOP, RATE_HEIGHT = 8, 110
COUNT_TOP, COUNT_HEIGHT = 130, 36
HEIGHT = 192


class Bar(NamedTuple):
    """name: of the hour or day in full; label: below the axis, "" for none."""

    name: str
    label: str
    hits: int
    misses: int


def by_hour(counts: Mapping[int, tuple[int, int]], now: float) -> list[Bar]:
    """The last hours up to now, times in UTC. counts: hour since the epoch → hits, misses."""
    last = int(now // 3600)
    found = []
    for hour in range(last - HOURS + 1, last + 1):
        at = time.gmtime(hour * 3600)
        label = time.strftime("%H:00", at) if at.tm_hour % 12 == 0 else ""
        found.append(Bar(time.strftime("%a %d %b, %H:00", at), label, *counts.get(hour, (0, 0))))
    return found


def by_day(counts: Mapping[int, tuple[int, int]], now: float) -> list[Bar]:
    """The same by days."""
    last = int(now // 86400)
    days: dict[int, tuple[int, int]] = {}
    for hour, (hits, misses) in counts.items():
        known = days.get(hour // 24, (0, 0))
        days[hour // 24] = (known[0] + hits, known[1] + misses)
    found = []
    for day in range(last - DAYS + 1, last + 1):
        at = time.gmtime(day * 86400)
        label = time.strftime("%d %b", at) if (last - day) % 7 == 0 else ""
        found.append(Bar(time.strftime("%a %d %b", at), label, *days.get(day, (0, 0))))
    return found


def summary(bars: Sequence[Bar]) -> str:
    """`83 % of 1,204 lookups`."""
    hits, misses = sum(bar.hits for bar in bars), sum(bar.misses for bar in bars)
    rate = percent(hits, hits + misses)
    return "no lookups yet" if rate is None else f"{rate} % of {_lookups(hits + misses)}"


def chart(bars: Sequence[Bar], title: str) -> str:
    """Above the rate, below how many lookups there were. title: for those who cannot see it."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    most = max((bar.hits + bar.misses for bar in bars), default=0)
    label = f"{title}: {summary(bars)}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for share in (0, 50, 100):
        y = RATE_TOP + RATE_HEIGHT * (100 - share) / 100
        parts.append(f'<path class="grid" d="M{LEFT} {y:g}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:g}" text-anchor="end">{share} %</text>')
    floor = COUNT_TOP + COUNT_HEIGHT
    parts.append(f'<path class="grid" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text x="{LEFT - 5}" y="{COUNT_TOP + 9}" text-anchor="end">{_short(most)}</text>')
    for number, bar in enumerate(bars):
        x = LEFT + number * step
        if bar.label:
            parts.append(f'<text x="{x + step / 2:g}" y="{HEIGHT - 8}" text-anchor="middle">{escape(bar.label)}</text>')
        count = bar.hits + bar.misses
        rate = percent(bar.hits, count)
        if rate is None:
            continue  # nobody asked: that is no rate
        wide = f'x="{x + step * 0.12:g}" width="{step * 0.76:g}"'
        high = max(1.5, RATE_HEIGHT * bar.hits / count)
        few = max(1.5, COUNT_HEIGHT * count / most)
        parts.append(
            f'<g class="bar"><title>{escape(f"{bar.name}: {rate} % of {_lookups(count)}")}</title>'
            f'<rect class="space" x="{x:g}" y="{RATE_TOP}" width="{step:g}" height="{floor - RATE_TOP}"/>'
            f'<rect class="rate" {wide} y="{RATE_TOP + RATE_HEIGHT - high:g}" height="{high:g}"/>'
            f'<rect class="count" {wide} y="{floor - few:g}" height="{few:g}"/></g>'
        )
    return "".join([*parts, "</svg>"])


def _lookups(count: int) -> str:
    return "1 lookup" if count == 1 else f"{count:,} lookups"


def _short(count: int) -> str:
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if count >= 10 * size:
            return f"{count // size}{unit}"
    return str(count) if count else ""
