"""Eviction: what an item of the store is worth, and which go first. Pure: numbers in, choices out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HALF_LIFE = 7 * 86_400.0
"""Seconds after which what was not used is half as likely to be used again: a working week."""
LEAST_BYTES = 512.0
"""What an item counts at least, so that one whose bytes all belong to others, too, is not worth infinitely much."""


class Candidate(NamedTuple):
    """What may go. key: breaks ties. blobs: numbers of what it holds, maybe with others. own: bytes of its alone."""

    key: str
    blobs: tuple[int, ...]
    own: int
    value: float


class Choice(NamedTuple):
    """candidate: its number. freed: bytes that come back when it goes, after those before it."""

    candidate: int
    freed: int


def chance(age: float, count: int) -> float:
    """How likely an item is used again. age: seconds since the last use. count: builds that used it.

    (count + 1) / (count + 2) is Laplace's guess for what has worked so many times; it halves every HALF_LIFE.
    """
    halvings = min(max(0.0, age) / HALF_LIFE, 1000.0)
    return float((count + 1) / (count + 2) * 0.5**halvings)


def value(seconds: float, age: float, count: int, size: float) -> float:
    """Expected seconds saved for each byte kept: seconds to rebuild × chance of use ÷ bytes."""
    return max(0.0, seconds) * chance(age, count) / max(size, LEAST_BYTES)


def choose(
    candidates: Sequence[Candidate], sizes: Sequence[int], holders: Sequence[int], need: int | None
) -> list[Choice]:
    """Which go, in order: lowest value first, equal ones by key, until `need` bytes came back; None: all of them.

    sizes: bytes of each blob. holders: how many items hold it, candidates or not: a blob comes back with its last one.
    Nothing is chosen for a need of 0 or less; without the last choice the need is not met.
    """
    if need is not None and need <= 0:
        return []
    left = list(holders)
    order = sorted(range(len(candidates)), key=lambda number: (candidates[number].value, candidates[number].key))
    chosen: list[Choice] = []
    total = 0
    for number in order:
        freed = candidates[number].own + _let_go(candidates[number].blobs, sizes, left)
        chosen.append(Choice(number, freed))
        total += freed
        if need is not None and total >= need:
            break
    return chosen


def _let_go(blobs: Iterable[int], sizes: Sequence[int], left: list[int]) -> int:
    freed = 0
    for blob in blobs:
        left[blob] -= 1
        if left[blob] == 0:
            freed += sizes[blob]
    return freed
