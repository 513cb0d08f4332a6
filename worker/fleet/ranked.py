"""Ranked: things by rank, the lowest first, that may get another rank or be dropped at any time."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Rank = tuple[float, int]
"""What counts, and a number that no two things share, so that the same events give the same order."""
SLACK = 32
"""Entries of the heap that may be stale, beyond as many as there are things."""


class Ranked:
    """A heap whose stale entries are passed over. Not more than twice as large as what it holds, and SLACK."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, str]] = []
        self._ranks: dict[str, Rank] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, thing: object) -> bool:
        return thing in self._ranks

    def __iter__(self) -> Iterator[str]:
        """In no order that counts."""
        return iter(self._ranks)

    def put(self, thing: str, rank: Rank) -> None:
        """Add it, or give it another rank."""
        self._ranks[thing] = rank
        heapq.heappush(self._heap, (rank, thing))
        self._tidy()

    def drop(self, thing: str) -> None:
        """It may be missing."""
        if self._ranks.pop(thing, None) is not None:
            self._tidy()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._ranks) + SLACK:
            self._heap = [(rank, thing) for thing, rank in self._ranks.items()]
            heapq.heapify(self._heap)

    def first(self) -> tuple[Rank, str] | None:
        """The lowest, which stays; None if there is nothing."""
        heap, ranks = self._heap, self._ranks
        while heap:
            rank, thing = heap[0]
            if ranks.get(thing) == rank:
                return heap[0]
            heapq.heappop(heap)
        return None

    def due(self, until: float) -> list[str]:
        """Take out everything whose rank begins with `until` or less, the lowest first."""
        found: list[str] = []
        if not self._ranks:  # most are, most of the time, and each event asks
            return found
        while (first := self.first()) is not None and first[0][0] <= until:
            del self._ranks[first[1]]
            found.append(first[1])
        return found
