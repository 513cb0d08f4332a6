"""A plan as SVG: the graph with its stages, and the times at which steps would run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.views import phrases
from compiler.views.arrange import arrange, critical_edges
from compiler.views.layout import BOX_HEIGHT, BOX_WIDTH, HEADER, PADDING, Edge, Item, lay_out

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook

TITLE, NAME = 30, 18
"""Characters of an instruction, and of a node's id, that fit a box."""
TOOLTIP = 300
RADIUS = 8
BAR, BAR_LEFT, BAR_WIDTH = 20, 150, 700
_LETTERS = {HIT: "✓", MISS: "▶", DEPENDS: "?"}


def graph(forecast: Forecast, target: str) -> str:
    """The whole picture as one element. Each node links to the place `#nNUMBER` of its outlook."""
    numbers = {outlook.node.id: number for number, outlook in enumerate(forecast.outlooks)}
    by_id = {outlook.node.id: outlook for outlook in forecast.outlooks}
    items, stands_for = _items(forecast)
    arranged = arrange(forecast)
    names = {stage.name for stage in arranged.stages}
    layout = lay_out(items, frozenset(names))
    critical = set(forecast.critical_path)
    thick = {(stands_for[name], stands_for[user]) for name, user in critical_edges(forecast, target)}
    parts = [opening("graph", layout.width, layout.height, "The graph of the build")]
    goal = by_id[target].node.stage if target in by_id else ""
    titles = []
    for name, box in layout.groups.items():
        mark = " ← target" if name == goal else ""
        place = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"'
        parts.append(f'<rect class="stage" {place} rx="10"/>')
        text = escape(phrases.cut(f"stage {phrases.one_line(name)}{mark}", TITLE))
        titles.append(f'<text class="stage-name" x="{box.x + PADDING:g}" y="{box.y + HEADER - 6:g}">{text}</text>')
    for edge in layout.edges:
        heavy = " critical" if (edge.source, edge.target) in thick else ""
        ends = f'data-from="{numbers[edge.source]}" data-to="{numbers[edge.target]}"'
        parts.append(f'<path class="edge{heavy}" {ends} d="{edge_path(edge)}"/>')
    # Above the edges, which may run through them.
    parts += titles
    for item in items:
        box = layout.boxes[item.id]
        parts.append(_node(by_id[item.id], numbers[item.id], box.x, box.y, item.id in critical))
    return "\n".join([*parts, "</svg>"])


def opening(name: str, width: float, height: float, label: str) -> str:
    """The start of a picture; width, height: pixels."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg class="{name}" {size} role="img" aria-label="{label}">'


def _items(forecast: Forecast) -> tuple[list[Item], dict[str, str]]:
    """What is drawn, and by whom each node is shown: sources, steps, and stages that have no step; who takes from
    another stage takes its last step."""
    stands_for: dict[str, str] = {}
    with_steps = {outlook.node.stage for outlook in forecast.outlooks if outlook.node.is_step}
    items = []
    for outlook in forecast.outlooks:
        node = outlook.node
        inputs = tuple(stands_for[name] for name in node.inputs)
        if node.kind == "stage" and node.stage in with_steps:
            stands_for[node.id] = inputs[0]
            continue
        stands_for[node.id] = node.id
        items.append(Item(node.id, node.stage or f"source {node.id}", inputs))
    return items, stands_for


def _node(outlook: Outlook, number: int, x: float, y: float, critical: bool) -> str:
    node = outlook.node
    head = f"{'=' if outlook.same_as else _LETTERS[outlook.status]} {phrases.cut(phrases.one_line(node.id), NAME)}"
    text = phrases.cut(phrases.one_line(node.text or node.kind), TITLE)
    time = phrases.about(outlook) if node.is_step else ""
    kind = f"node {outlook.status}{'' if node.is_step else ' source'}{' critical' if critical else ''}"
    tip = phrases.cut(phrases.one_line(f"{node.text or node.kind} — {outlook.why.text}"), TOOLTIP)
    words = [
        f'<a href="#n{number}" class="{kind}" data-node="{number}">',
        f"<title>{escape(tip)}</title>",
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{RADIUS}"/>',
        f'<text class="id" x="{x + 10:g}" y="{y + 19:g}">{escape(head)}</text>',
        f'<text class="time" x="{x + BOX_WIDTH - 10:g}" y="{y + 19:g}" text-anchor="end">{escape(time)}</text>',
        f'<text class="code" x="{x + 10:g}" y="{y + 38:g}">{escape(text)}</text>',
        "</a>",
    ]
    return "".join(words)


def edge_path(edge: Edge) -> str:
    """The way with its corners rounded."""
    points = edge.points
    words = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        for end, command in ((before, "L"), (after, "Q")):
            length = abs(end[0] - corner[0]) + abs(end[1] - corner[1])
            share = min(0.5, RADIUS / length) if length else 0.0
            near = (corner[0] + (end[0] - corner[0]) * share, corner[1] + (end[1] - corner[1]) * share)
            control = f"{corner[0]:g} {corner[1]:g} " if command == "Q" else ""
            words.append(f"{command}{control}{near[0]:g} {near[1]:g}")
    words.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return "".join(words)


def times(forecast: Forecast) -> str:
    """When each step that may run would, as bars; "" if nothing is known of that."""
    spans = [span for span in forecast.spans if span.end > span.start]
    whole = forecast.wall_seconds
    if not spans or whole <= 0:
        return ""
    by_id = {outlook.node.id: outlook for outlook in forecast.outlooks}
    critical = set(forecast.critical_path)
    width, height = BAR_LEFT + BAR_WIDTH + 90, BAR * len(spans) + 8
    parts = [opening("times", width, height, "When each step would run")]
    for row, span in enumerate(spans):
        y = 4 + row * BAR
        x = BAR_LEFT + BAR_WIDTH * span.start / whole
        long = max(2.0, BAR_WIDTH * (span.end - span.start) / whole)
        kind = by_id[span.node].status + (" critical" if span.node in critical else "")
        name = escape(phrases.cut(phrases.one_line(span.node), NAME))
        parts.append(f'<text class="id" x="{BAR_LEFT - 8}" y="{y + 13}" text-anchor="end">{name}</text>')
        parts.append(f'<rect class="{kind}" x="{x:g}" y="{y}" width="{long:g}" height="{BAR - 5}" rx="3"/>')
        seconds = escape(phrases.seconds_phrase(span.end - span.start))
        parts.append(f'<text class="time" x="{x + long + 5:g}" y="{y + 12}">{seconds}</text>')
    return "\n".join([*parts, "</svg>"])
