"""BuildPicture: the graph of a build that was, as SVG, laid out as a plan is. Records may say anything."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from compiler.views.layout import BOX_HEIGHT, BOX_WIDTH, HEADER, PADDING, Item, lay_out
from compiler.views.phrases import cut, one_line, seconds_phrase
from compiler.views.plan_svg import NAME, RADIUS, TITLE, TOOLTIP, edge_path, opening

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.build_record import BuildRecord

MOST_NODES, MOST_EDGES = 500, 2000
"""That are drawn: of a larger graph nobody could see anything."""
STEPS = ("run", "copy", "add", "workdir")
CLASSES = {"cached": "hit", "ran": "miss", "failed": "failed", "cancelled": "idle"}
SIGNS = {"cached": "✓", "ran": "▶", "failed": "✗", "cancelled": "–"}


class _Drawn(NamedTuple):
    """number: of the step in the build's list, None for what stands beside. group: stage, or one of its own."""

    id: str
    number: int | None
    style: str
    head: str
    text: str
    time: str
    group: str
    inputs: tuple[str, ...]
    stage: str


def picture(build: BuildRecord) -> str:
    """One SVG element; each step links to `#nNUMBER`. "" if the record does not say how steps hang together, or if
    there are too many."""
    nodes = _nodes(build)
    count = sum(len(node.inputs) for node in nodes.values())
    if not count or len(nodes) > MOST_NODES or count > MOST_EDGES:
        return ""
    ordered = _in_order(nodes)
    # What comes later in the order stands in a circle, which no graph of ours has.
    place = {node.id: number for number, node in enumerate(ordered)}
    items = [
        Item(node.id, node.group, tuple(name for name in node.inputs if place.get(name, len(place)) < place[node.id]))
        for node in ordered
    ]
    stages = {node.group: node.stage for node in ordered if node.stage}
    layout = lay_out(items, frozenset(stages))
    parts = [opening("graph", layout.width, layout.height, "The graph of the build")]
    titles = []
    for name, box in layout.groups.items():
        mark = " ← target" if stages[name] == build.target else ""
        size = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"'
        parts.append(f'<rect class="stage" {size} rx="10"/>')
        text = escape(cut(f"stage {one_line(stages[name])}{mark}", TITLE))
        titles.append(f'<text class="stage-name" x="{box.x + PADDING:g}" y="{box.y + HEADER - 6:g}">{text}</text>')
    parts += [f'<path class="edge" d="{edge_path(edge)}"/>' for edge in layout.edges]
    parts += titles
    for node in ordered:
        box = layout.boxes[node.id]
        parts.append(_box(node, box.x, box.y))
    return "\n".join([*parts, "</svg>"])


def _nodes(build: BuildRecord) -> dict[str, _Drawn]:
    """Those of the build, steps that it did not come to or could do without, and what all of them take from."""
    found: dict[str, _Drawn] = {}
    for number, node in enumerate(build.nodes):
        stage = _stage(node.id)
        time = "" if node.status == "cancelled" else seconds_phrase(max(0.0, node.seconds))
        head = f"{SIGNS[node.status]} {node.id}"
        found[node.id] = _Drawn(
            node.id, number, CLASSES[node.status], head, node.title, time if node.status != "cached" else "",
            f"stage {stage}", node.inputs, stage,
        )  # fmt: skip
    beside = {each.id: each for each in build.beside}
    waiting = [name for node in build.nodes for name in node.inputs]
    waiting += [each.id for each in build.beside if each.kind in STEPS]
    while waiting:
        each = beside.get(waiting.pop())
        if each is None or each.id in found:
            continue
        stage = _stage(each.id) if each.kind in STEPS else ""
        style, head = ("idle", f"· {each.id}") if stage else ("source", each.id)
        group = f"stage {stage}" if stage else f"source {each.id}"
        text = each.text or each.kind
        found[each.id] = _Drawn(each.id, None, style, head, text, "", group, each.inputs, stage)
        waiting += each.inputs
    return found


def _stage(name: str) -> str:
    return name.rpartition(".")[0] or name


def _in_order(nodes: Mapping[str, _Drawn]) -> list[_Drawn]:
    """Inputs before their users, otherwise as the build names them."""
    ordered: list[_Drawn] = []
    seen: set[str] = set()
    for start in sorted(nodes, key=lambda name: (nodes[name].number is None, _place(name))):
        waiting = [(start, False)]
        while waiting:
            name, done = waiting.pop()
            if done:
                ordered.append(nodes[name])
            elif name in nodes and name not in seen:
                seen.add(name)
                waiting.append((name, True))
                waiting += [(each, False) for each in reversed(nodes[name].inputs)]
    return ordered


def _place(name: str) -> tuple[str, int, str]:
    stage, _, number = name.rpartition(".")
    return stage, int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0, name


def _box(node: _Drawn, x: float, y: float) -> str:
    words = [
        f"<title>{escape(cut(one_line(node.text), TOOLTIP))}</title>",
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{RADIUS}"/>',
        f'<text class="id" x="{x + 10:g}" y="{y + 19:g}">{escape(cut(one_line(node.head), NAME + 2))}</text>',
        f'<text class="time" x="{x + BOX_WIDTH - 10:g}" y="{y + 19:g}" text-anchor="end">{escape(node.time)}</text>',
        f'<text class="code" x="{x + 10:g}" y="{y + 38:g}">{escape(cut(one_line(node.text), TITLE))}</text>',
    ]
    if node.number is None:
        return f'<g class="node {node.style}">{"".join(words)}</g>'
    return f'<a href="#n{node.number}" class="node {node.style}">{"".join(words)}</a>'
