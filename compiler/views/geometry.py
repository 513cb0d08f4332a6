"""Geometry: a layout in pixels; boxes, frames of groups, and edges that keep to the gaps between the boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compiler.views.layout import Cell, Layout, lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compiler.views.layout import Item

WIDTH = 236
MARGIN = 14
ROW_GAP = 34
"""Between two layers: room for the curves of edges."""
TITLE = 20
"""More above a layer in which a group begins, for its name."""
PAD = 9
"""Between a group's boxes and its frame."""
GUTTER = 2 * PAD + 12
"""Between two columns without edges in it."""
TRACK = 7
"""Between two long edges beside each other."""
PORT = 22
"""Between the ends of two edges at one box, if there is room."""


class Box(NamedTuple):
    """A rectangle; x and y of its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


class Edge(NamedTuple):
    """points: from the bottom of a box to the top of another, never upwards. Between two points with different x the
    line is a curve that leaves and arrives vertically; between others it is straight."""

    source: str
    target: str
    points: tuple[tuple[float, float], ...]


class Drawing(NamedTuple):
    """frames: by group. width, height: of all of it."""

    boxes: dict[str, Box]
    frames: dict[str, Box]
    edges: tuple[Edge, ...]
    width: float
    height: float


def draw(items: Sequence[Item], heights: Mapping[str, float]) -> Drawing:
    """Place boxes of these heights and route the edges. heights: by id."""
    layout = lay_out(items)
    tracks = _tracks(items, layout)
    columns, width = _columns(layout, tracks)
    rows, height = _rows(layout, heights)
    boxes = {
        name: Box(columns[cell.column], rows[cell.layer][0], WIDTH, heights[name]) for name, cell in layout.cells.items()
    }
    frames = {}
    for run in layout.runs:
        x, y = columns[run.column] - PAD, rows[run.first][0] - TITLE - PAD / 2
        frames[run.group] = Box(x, y, WIDTH + 2 * PAD, rows[run.last][1] + PAD - y)
    edges: list[Edge] = []
    for item in items:
        ends = _ends(item, layout, tracks, columns, boxes)
        for name, x in ends:
            edges.append(_edge(name, item.id, x, layout, tracks, columns, rows, boxes))
    return Drawing(boxes, frames, tuple(edges), width, height)


class _Lane(NamedTuple):
    """The way of a long edge: the gutter left of a column, and the track in it."""

    gutter: int
    track: int


def _tracks(items: Sequence[Item], layout: Layout) -> dict[tuple[str, str], _Lane]:
    """A lane for each edge that passes by other layers. Edges of one source share theirs: they mean the same."""
    taken = {(cell.layer, cell.column) for cell in layout.cells.values()}
    ways: dict[tuple[int, str], list[tuple[int, int, str]]] = {}
    for item in items:
        target = layout.cells[item.id]
        for name in dict.fromkeys(item.inputs):
            source = layout.cells[name]
            between = range(source.layer + 1, target.layer)
            if not between:
                continue
            if source.column == target.column and not any((layer, source.column) in taken for layer in between):
                continue
            gutter = target.column + (1 if source.column > target.column else 0)
            ways.setdefault((gutter, name), []).append((between[0], between[-1], item.id))
    lanes: dict[tuple[str, str], _Lane] = {}
    busy: dict[int, list[list[tuple[int, int]]]] = {}
    for (gutter, name), spans in sorted(ways.items()):
        first, last = min(span[0] for span in spans), max(span[1] for span in spans)
        rows = busy.setdefault(gutter, [])
        track = next(
            (number for number, used in enumerate(rows) if all(last < one[0] or first > one[1] for one in used)), len(rows)
        )
        if track == len(rows):
            rows.append([])
        rows[track].append((first, last))
        for _, _, target_id in spans:
            lanes[name, target_id] = _Lane(gutter, track)
    return lanes


def _columns(layout: Layout, lanes: Mapping[tuple[str, str], _Lane]) -> tuple[list[float], float]:
    """The left edge of each column, and of what is right of the last one."""
    counts = [0] * (layout.columns + 1)
    for lane in lanes.values():
        counts[lane.gutter] = max(counts[lane.gutter], lane.track + 1)
    x = float(MARGIN - GUTTER + PAD)
    lefts = []
    for column in range(layout.columns + 1):
        x += GUTTER + TRACK * counts[column]
        lefts.append(x)
        x += WIDTH
    outside = MARGIN + PAD if not counts[-1] else MARGIN
    return lefts, lefts[-1] - GUTTER + outside if layout.columns else 2.0 * MARGIN


def _lane_x(lane: _Lane, columns: Sequence[float]) -> float:
    return columns[lane.gutter] - PAD - 6 - TRACK * lane.track


def _rows(layout: Layout, heights: Mapping[str, float]) -> tuple[list[tuple[float, float]], float]:
    """Top and bottom of each layer."""
    begins = {run.first for run in layout.runs}
    tallest = [0.0] * layout.layers
    for name, cell in layout.cells.items():
        tallest[cell.layer] = max(tallest[cell.layer], heights[name])
    y = float(MARGIN)
    rows = []
    for layer in range(layout.layers):
        y += (ROW_GAP if layer else 0) + (TITLE if layer in begins else 0)
        rows.append((y, y + tallest[layer]))
        y += tallest[layer]
    return rows, y + PAD + MARGIN


def _ends(
    item: Item,
    layout: Layout,
    lanes: Mapping[tuple[str, str], _Lane],
    columns: Sequence[float],
    boxes: Mapping[str, Box],
) -> list[tuple[str, float]]:
    """Where on the item's top each of its edges arrives: in the order in which they come from left and right."""
    names = list(dict.fromkeys(item.inputs))
    box = boxes[item.id]

    def comes_from(name: str) -> tuple[float, str]:
        lane = lanes.get((name, item.id))
        return (_lane_x(lane, columns) if lane else boxes[name].middle, name)

    names.sort(key=comes_from)
    apart = min(PORT, box.width / (len(names) + 1)) if names else 0.0
    return [(name, box.middle + apart * (number - (len(names) - 1) / 2)) for number, name in enumerate(names)]


def _edge(
    name: str,
    target_id: str,
    x: float,
    layout: Layout,
    lanes: Mapping[tuple[str, str], _Lane],
    columns: Sequence[float],
    rows: Sequence[tuple[float, float]],
    boxes: Mapping[str, Box],
) -> Edge:
    source, target = boxes[name], boxes[target_id]
    from_layer, to_layer = layout.cells[name].layer, layout.cells[target_id].layer
    points = [(source.middle, source.bottom), (source.middle, rows[from_layer][1])]
    lane = lanes.get((name, target_id))
    if lane is not None:
        lane_x = _lane_x(lane, columns)
        points += [(lane_x, rows[from_layer + 1][0]), (lane_x, rows[to_layer - 1][1])]
    elif to_layer > from_layer + 1:
        points.append((source.middle, rows[to_layer - 1][1]))
    points.append((x, target.y))
    return Edge(name, target_id, tuple(point for place, point in enumerate(points) if not place or point != points[place - 1]))


__all__ = ["Box", "Cell", "Drawing", "Edge", "draw"]
