"""Grouping: the bytes of an inventory by kind, project or image, what several share counted once and apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.inventory import Inventory, Item

_SHARED = -1
_NONE = -2


class Group(NamedTuple):
    """items: that belong to it, also those that belong to others, too. bytes: that it alone has."""

    name: str
    items: int
    bytes: int


class Groups(NamedTuple):
    """shared: bytes that several hold, counted once."""

    groups: list[Group]
    shared: int


def by_kind(inventory: Inventory) -> Groups:
    """shared: what several items hold, of one kind or not."""
    items: dict[str, int] = {}
    totals: dict[str, int] = {}
    for item in inventory.items:
        mine = sum(inventory.sizes[blob] for blob in item.blobs if inventory.holders[blob] == 1)
        items[item.kind] = items.get(item.kind, 0) + 1
        totals[item.kind] = totals.get(item.kind, 0) + item.own + mine
    pairs = zip(inventory.sizes, inventory.holders, strict=True)
    return Groups(_sorted(items, totals), sum(size for size, holders in pairs if holders > 1))


def by_names(inventory: Inventory, names: Callable[[Item], tuple[str, ...]], nobody: str) -> Groups:
    """By all names of each item; `nobody` for items without."""
    numbers: dict[str, int] = {}
    items: dict[str, int] = {}
    totals: dict[str, int] = {}
    holder = [_NONE] * len(inventory.sizes)
    shared = 0
    for item in inventory.items:
        mine = names(item) or (nobody,)
        for name in mine:
            numbers.setdefault(name, len(numbers))
            items[name] = items.get(name, 0) + 1
            totals.setdefault(name, 0)
        number = numbers[mine[0]] if len(mine) == 1 else _SHARED
        if number == _SHARED:
            shared += item.own
        else:
            totals[mine[0]] += item.own
        for blob in item.blobs:
            holder[blob] = number if holder[blob] in (_NONE, number) else _SHARED
    known = list(numbers)
    for blob, number in enumerate(holder):
        if number == _SHARED:
            shared += inventory.sizes[blob]
        elif number != _NONE:
            totals[known[number]] += inventory.sizes[blob]
    return Groups(_sorted(items, totals), shared)


def _sorted(items: dict[str, int], totals: dict[str, int]) -> list[Group]:
    groups = [Group(name, items[name], totals[name]) for name in items]
    return sorted(groups, key=lambda group: (-group.bytes, group.name))
