"""RowsPicture: bars in rows over time, as SVG that is as wide as there is room; letters keep their size."""

from __future__ import annotations

import itertools
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from compiler.trace.lanes import lanes, settled
from compiler.views.phrases import cut, one_line, seconds_phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

LANE, BAR = 27, 22
"""Pixels from one lane to the next, and of a bar's height."""
LABEL, AXIS, GAP = 20, 22, 8
LEAST_WIDTH = 0.4
"""Per cent of the width that the shortest bar takes, so that it can be seen and pointed at."""
MOST_LANES = 400
"""Of one picture; below that nobody looks."""
TEXT, TOOLTIP = 60, 300


class RowBar(NamedTuple):
    """start, end: seconds on the picture's axis. text: in the bar; tooltip: when pointed at. style: its class. href: of
    what tells more, "" for nothing. critical: whether it is marked, and linked with those that are before and after."""

    start: float
    end: float
    text: str
    tooltip: str
    style: str
    href: str = ""
    critical: bool = False


def rows_picture(
    rows: Sequence[tuple[str, Sequence[RowBar]]], seconds: float, label: str, now: float | None = None
) -> str:
    """One SVG element. rows: names and bars. seconds: how long the axis is. label: for those who cannot see it. now:
    where on the axis a line stands. Texts may be anything."""
    seconds = max(seconds, 1e-3)
    parts: list[str] = []
    marked: list[tuple[RowBar, float]] = []
    y, left_out, used = float(AXIS), 0, 0
    for name, given in rows:
        bars = sorted(given, key=lambda bar: (bar.start, bar.end))
        ends = settled([(bar.start, bar.end) for bar in bars])
        bars = [bar._replace(end=end) for bar, (_, end) in zip(bars, ends, strict=True)]
        places = lanes([(bar.start, max(bar.end, bar.start + seconds * LEAST_WIDTH / 100)) for bar in bars])
        count = max(places, default=0) + 1
        if used + count > MOST_LANES:
            left_out += 1
            continue
        used += count
        parts.append(f'<text class="row" x="0" y="{y + LABEL - 6:g}">{escape(cut(one_line(name), TEXT))}</text>')
        y += LABEL
        parts.append(f'<rect class="lane" x="0" y="{y:g}" width="100%" height="{count * LANE}"/>')
        for bar, lane in zip(bars, places, strict=True):
            top = y + lane * LANE + (LANE - BAR) / 2
            parts.append(_bar(bar, top, seconds))
            if bar.critical:
                marked.append((bar, top + BAR / 2))
        y += count * LANE + GAP
    if left_out:
        parts.append(f'<text class="row" x="0" y="{y + LABEL - 6:g}">… and {left_out} more rows</text>')
        y += LABEL
    behind = _axis(seconds, y, now)
    if now is not None:
        x = _share(now, seconds)
        parts.append(f'<line class="now" x1="{x:g}%" x2="{x:g}%" y1="{AXIS}" y2="{y:g}"/>')
    marked.sort(key=lambda each: each[0].start)
    links = [_link(before, after, seconds) for before, after in itertools.pairwise(marked)]
    head = f'<svg class="rows-picture" width="100%" height="{y:g}" role="img" aria-label="{escape(label)}">'
    return "\n".join([head, *behind, *links, *parts, "</svg>"])


def _share(at: float, seconds: float) -> float:
    """Per cent of the width."""
    return round(100 * min(1.0, max(0.0, at / seconds)), 3)


def _axis(seconds: float, height: float, now: float | None) -> list[str]:
    """now: what times are counted from, both ways; None for the axis' start."""
    parts = []
    for share, anchor in ((0, "start"), (25, "middle"), (50, "middle"), (75, "middle"), (100, "end")):
        parts.append(f'<line class="grid" x1="{share}%" x2="{share}%" y1="{AXIS - 6}" y2="{height:g}"/>')
        text = _time(seconds * share / 100, now)
        parts.append(f'<text class="tick" x="{share}%" y="12" text-anchor="{anchor}">{text}</text>')
    return parts


def _time(at: float, now: float | None) -> str:
    if now is None:
        return seconds_phrase(at) if at else "0"
    if abs(at - now) < 0.05:
        return "now"
    return f"{'−' if at < now else '+'}{seconds_phrase(abs(at - now))}"


def _bar(bar: RowBar, top: float, seconds: float) -> str:
    """In an element of its own, which cuts off what does not fit."""
    x = _share(bar.start, seconds)
    width = max(LEAST_WIDTH, round(_share(bar.end, seconds) - x, 3))
    x = min(x, 100 - width)
    text = f"◆ {bar.text}" if bar.critical else bar.text
    inner = (
        f'<svg x="{x:g}%" y="{top:g}" width="{width:g}%" height="{BAR}">'
        f"<title>{escape(cut(one_line(bar.tooltip), TOOLTIP))}</title>"
        f'<rect width="100%" height="{BAR}" rx="4"/>'
        f'<text x="5" y="15">{escape(cut(one_line(text), TEXT))}</text></svg>'
    )
    style = f"node {bar.style}{' critical' if bar.critical else ''}"
    if bar.href:
        return f'<a href="{escape(bar.href)}" class="{style}">{inner}</a>'
    return f'<g class="{style}">{inner}</g>'


def _link(before: tuple[RowBar, float], after: tuple[RowBar, float], seconds: float) -> str:
    return (
        f'<line class="critical-link" x1="{_share(before[0].end, seconds):g}%" y1="{before[1]:g}"'
        f' x2="{_share(after[0].start, seconds):g}%" y2="{after[1]:g}"/>'
    )
