"""Layout: where the boxes of a graph stand; pure, the same for the same input.

Time goes down: every box is in a layer below all that it takes from. A group (a stage) is a chain in one column with a
frame around it; what belongs to no group stands in the first layers. Columns are limited in number, so that a hundred
stages do not make a picture of a hundred columns: those that have no room wait for a lower layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FEWEST_COLUMNS = 6
SWEEPS = 8
"""Tries to order the columns better; each takes time in proportion to the edges."""


class Item(NamedTuple):
    """What is to be placed. group: "" for none. inputs: ids of items that come before it in the sequence, or at least
    in a group that is complete by then."""

    id: str
    group: str
    inputs: tuple[str, ...]


class Cell(NamedTuple):
    """layer: 0 at the top. column: 0 at the left."""

    layer: int
    column: int


class Run(NamedTuple):
    """A group's place: the layers from first to last of one column are its own."""

    group: str
    column: int
    first: int
    last: int


class Layout(NamedTuple):
    """cells: by id, no two alike. runs: of the groups, none overlaps another or a cell that is not its own."""

    cells: dict[str, Cell]
    runs: tuple[Run, ...]
    layers: int
    columns: int


def lay_out(items: Sequence[Item]) -> Layout:
    """Place all items. An item of a group stands below the one before it in the group."""
    loose = [item for item in items if not item.group]
    groups: dict[str, list[Item]] = {}
    for item in items:
        if item.group:
            # In the order of their ends: moved back with each further item.
            groups[item.group] = [*groups.pop(item.group, []), item]
    most = max(FEWEST_COLUMNS, round(len(items) ** 0.5))
    # Sources stand side by side, in as many rows as that takes.
    top = -(-len(loose) // most)
    placed = _stack(groups, top, most)
    columns = max([run.column + 1 for run in placed.runs], default=0)
    columns = max(columns, min(most, len(loose)))
    placed = _order_columns(placed, items, columns)
    column_of = {name: cell.column for name, cell in placed.cells.items()}
    users: dict[str, list[int]] = {item.id: [] for item in loose}
    for item in items:
        for name in item.inputs:
            if name in users and item.id in column_of:
                users[name].append(column_of[item.id])
    cells = {**placed.cells, **_place_loose(loose, users, top, columns)}
    layers = max((cell.layer + 1 for cell in cells.values()), default=0)
    return Layout({item.id: cells[item.id] for item in items}, placed.runs, layers, columns)


class _Placed(NamedTuple):
    cells: dict[str, Cell]
    runs: tuple[Run, ...]


def _stack(groups: dict[str, list[Item]], top: int, most: int) -> _Placed:
    """Give each group the layers that its inputs allow, and a column that is free there."""
    cells: dict[str, Cell] = {}
    free_from: list[int] = []
    runs = []
    for name, items in groups.items():
        layers = _chain(items, cells, top)
        near = [cells[other].column for item in items for other in item.inputs if other in cells]
        wish = near[0] if near else len(free_from)
        fitting = [column for column, free in enumerate(free_from) if free <= layers[0]]
        if fitting:
            column = min(fitting, key=lambda column: (abs(column - wish), column))
        elif len(free_from) < most:
            column = len(free_from)
            free_from.append(top)
        else:
            column = min(range(most), key=lambda column: (free_from[column], abs(column - wish)))
            layers = _chain(items, cells, free_from[column])
        for item, layer in zip(items, layers, strict=True):
            cells[item.id] = Cell(layer, column)
        free_from[column] = layers[-1] + 1
        runs.append(Run(name, column, layers[0], layers[-1]))
    return _Placed(cells, tuple(runs))


def _chain(items: Iterable[Item], cells: dict[str, Cell], first: int) -> list[int]:
    layers: list[int] = []
    for item in items:
        layer = layers[-1] + 1 if layers else first
        below = max((cells[name].layer + 1 for name in item.inputs if name in cells), default=0)
        layers.append(max(layer, below))
    return layers


def _order_columns(placed: _Placed, items: Sequence[Item], columns: int) -> _Placed:
    """Put columns beside those that they have edges with: each to the mean place of its neighbours, several times."""
    links: dict[int, list[int]] = {column: [] for column in range(columns)}
    for item in items:
        for name in item.inputs:
            if name in placed.cells and item.id in placed.cells:
                one, other = placed.cells[name].column, placed.cells[item.id].column
                if one != other:
                    links[one].append(other)
                    links[other].append(one)
    place = {column: column for column in range(columns)}
    best, shortest = place, _length(links, place)
    for _ in range(SWEEPS):
        wish = {
            column: sum(place[other] for other in others) / len(others) if others else place[column]
            for column, others in links.items()
        }
        order = sorted(wish, key=lambda column: (wish[column], place[column]))
        place = {column: number for number, column in enumerate(order)}
        length = _length(links, place)
        if length < shortest:
            best, shortest = place, length
    return _Placed(
        {name: cell._replace(column=best[cell.column]) for name, cell in placed.cells.items()},
        tuple(run._replace(column=best[run.column]) for run in placed.runs),
    )


def _length(links: dict[int, list[int]], place: dict[int, int]) -> int:
    return sum(abs(place[column] - place[other]) for column, others in links.items() for other in others)


def _place_loose(loose: list[Item], users: dict[str, list[int]], top: int, columns: int) -> dict[str, Cell]:
    """Each near the middle of those that take from it; the lowest rows first, which are the nearest."""
    free = {(layer, column) for layer in range(top) for column in range(columns)}
    cells = {}

    def wish(item: Item) -> int:
        places = sorted(users[item.id])
        return places[len(places) // 2] if places else 0

    for item in sorted(loose, key=lambda item: (wish(item), item.id)):
        layer, column = min(free, key=lambda cell: (-cell[0], abs(cell[1] - wish(item)), cell[1]))
        free.remove((layer, column))
        cells[item.id] = Cell(layer, column)
    return cells
