"""Layout: where the nodes of a graph are drawn: rows by depth, a lane a group, edges in the gutters between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

BOX_WIDTH, BOX_HEIGHT = 220, 50
ROW = 84
"""Pixels from the top of one row to the next."""
GUTTER = 44
"""Pixels between two lanes, where edges run."""
MARGIN = 24
HEADER = 20
"""Pixels that a group's name takes above its first node."""
PADDING = 10
TRACKS = (0, 5, -5, 10, -10)
"""Pixels from the middle of a gutter: lines that mean different things run beside each other there."""
LEVELS = (0, -4, 4)
"""The same for the gaps between rows."""


class Item(NamedTuple):
    """One node to draw. group: of those that stay together in one lane. inputs: ids of nodes above, drawn or not."""

    id: str
    group: str
    inputs: tuple[str, ...]


class Box(NamedTuple):
    """Pixels from the top left."""

    x: float
    y: float
    width: float
    height: float


class Edge(NamedTuple):
    """From the bottom of one box to the top of another. points: corners of the way, both ends among them."""

    source: str
    target: str
    points: tuple[tuple[float, float], ...]


class Layout(NamedTuple):
    """boxes: by node. groups: frames around the boxes of those that get one, by name."""

    boxes: dict[str, Box]
    groups: dict[str, Box]
    edges: tuple[Edge, ...]
    width: float
    height: float


class _Group(NamedTuple):
    name: str
    first: int
    last: int


def lay_out(items: Sequence[Item], framed: frozenset[str]) -> Layout:
    """Place nodes; inputs come before their users in `items`. framed: groups that get a frame with their name."""
    rows = _rows(items)
    groups = _groups(items, rows)
    lanes = _lanes(items, groups)
    boxes = {
        item.id: Box(
            MARGIN + GUTTER / 2 + lanes[item.group] * (BOX_WIDTH + GUTTER),
            MARGIN + rows[item.id] * ROW + HEADER,
            BOX_WIDTH,
            BOX_HEIGHT,
        )
        for item in items
    }
    members: dict[str, list[Box]] = {}
    for item in items:
        members.setdefault(item.group, []).append(boxes[item.id])
    frames = {name: _frame(members[name]) for name in members if name in framed}
    edges = _edges(items, boxes)
    width = max((box.x + box.width for box in boxes.values()), default=0.0) + MARGIN + GUTTER / 2
    height = max((box.y + box.height for box in boxes.values()), default=0.0) + MARGIN
    return Layout(boxes, frames, edges, width, height)


def _rows(items: Sequence[Item]) -> dict[str, int]:
    """Depth: one more than the deepest input's. A group's nodes stay below each other, one a row."""
    rows: dict[str, int] = {}
    taken: dict[str, int] = {}
    for item in items:
        row = max((rows[name] + 1 for name in item.inputs if name in rows), default=0)
        rows[item.id] = max(row, taken.get(item.group, -1) + 1)
        taken[item.group] = rows[item.id]
    return rows


def _groups(items: Sequence[Item], rows: dict[str, int]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for item in items:
        row = rows[item.id]
        known = groups.get(item.group, _Group(item.group, row, row))
        groups[item.group] = known._replace(first=min(known.first, row), last=max(known.last, row))
    return groups


def _lanes(items: Sequence[Item], groups: dict[str, _Group]) -> dict[str, int]:
    """A lane for each group: below one that it takes from if there is room, else the first that is free there."""
    group_of = {item.id: item.group for item in items}
    above: dict[str, list[str]] = {}
    for item in items:
        for name in item.inputs:
            other = group_of.get(name)
            if other is not None and other != item.group and other not in above.setdefault(item.group, []):
                above[item.group].append(other)
    lanes: dict[str, int] = {}
    used: list[list[_Group]] = []
    # The longest first: it becomes the straight line that the others stand beside.
    for group in sorted(groups.values(), key=lambda each: (each.first - each.last, each.first)):
        near = [lanes[name] for name in above.get(group.name, ()) if name in lanes]
        near += [lanes[name] for name, others in above.items() if group.name in others and name in lanes]
        wanted = sum(near) / len(near) if near else 0.0
        free = [lane for lane, others in enumerate(used) if not any(_meet(group, other) for other in others)]
        lane = min([*free, len(used)], key=lambda place: (abs(place - wanted), place))
        if lane == len(used):
            used.append([])
        used[lane].append(group)
        lanes[group.name] = lane
    return lanes


def _meet(one: _Group, other: _Group) -> bool:
    """Whether two groups cannot share a lane: there is a row with both, or none between them."""
    return one.first <= other.last and other.first <= one.last


def _frame(boxes: Sequence[Box]) -> Box:
    left, top = boxes[0].x - PADDING, min(box.y for box in boxes) - HEADER
    bottom = max(box.y + box.height for box in boxes) + PADDING / 2
    return Box(left, top, BOX_WIDTH + 2 * PADDING, bottom - top)


def _edges(items: Sequence[Item], boxes: dict[str, Box]) -> tuple[Edge, ...]:
    """All edges, those in one gutter or between two rows apart from each other unless they come from the same node."""
    pairs = [(name, item.id) for item in items for name in dict.fromkeys(item.inputs) if name in boxes]
    bent = {name for name, user in pairs if len(_edge(name, user, boxes).points) > 2}
    in_row: dict[float, int] = {}
    levels: dict[str, int] = {}
    for name in sorted(bent, key=lambda name: boxes[name]):
        place = in_row.get(boxes[name].y, 0)
        in_row[boxes[name].y] = place + 1
        levels[name] = LEVELS[place % len(LEVELS)]
    # All ways of a node through one gutter are one line.
    ways: dict[tuple[float, str], list[float]] = {}
    for name, user in pairs:
        points = _edge(name, user, boxes).points
        if len(points) > 4:
            ways.setdefault((points[2][0], name), []).append(points[3][1])
    tracks: dict[tuple[float, str], int] = {}
    taken: dict[float, list[list[tuple[float, float]]]] = {}
    for (gutter, name), ends in sorted(ways.items()):
        first, last = boxes[name].y, max(ends)
        used = taken.setdefault(gutter, [[] for _ in TRACKS])
        free = (place for place, spans in enumerate(used) if all(last < one[0] or first > one[1] for one in spans))
        place = next(free, min(range(len(TRACKS)), key=lambda track: (len(used[track]), track)))
        used[place].append((first, last))
        tracks[gutter, name] = TRACKS[place]
    edges = []
    for name, user in pairs:
        points = _edge(name, user, boxes).points
        track = tracks.get((points[2][0], name), 0) if len(points) > 4 else 0
        edges.append(_edge(name, user, boxes, track, levels.get(name, 0)))
    return tuple(edges)


def _edge(source: str, target: str, boxes: dict[str, Box], track: int = 0, level: int = 0) -> Edge:
    """Straight down to the next row of the same lane; else by the gutter beside the upper node, where no box is.
    track, level: pixels beside the middle of the gutter, and below the usual height under the upper node."""
    upper, lower = boxes[source], boxes[target]
    start = (upper.x + upper.width / 2, upper.y + upper.height)
    end = (lower.x + lower.width / 2, lower.y)
    below = start[1] + (ROW - BOX_HEIGHT) / 4 + level
    over = end[1] - (ROW - BOX_HEIGHT) / 4
    if lower.y - upper.y <= ROW and start[0] != end[0]:
        return Edge(source, target, (start, (start[0], below), (end[0], below), end))
    if start[0] == end[0] and not any(box.x == upper.x and upper.y < box.y < lower.y for box in boxes.values()):
        return Edge(source, target, (start, end))
    # On the side of the target, so that the way back is short.
    gutter = (upper.x - GUTTER / 2 if end[0] < start[0] else upper.x + upper.width + GUTTER / 2) + track
    return Edge(source, target, (start, (start[0], below), (gutter, below), (gutter, over), (end[0], over), end))
