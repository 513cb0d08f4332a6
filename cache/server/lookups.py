"""Lookups: how many results were asked for since the server started, and how many of them were there, by namespace."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.server.meter import Meter

MAX_NAMESPACES = 200
"""That are counted; whoever asks in more of them costs no memory, and does not see those."""


class Lookups:
    """A `Meter` in front of another one. May be used by several threads at once."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        """Namespace → results asked for, and found."""

    def received(self, namespace: str, size: int) -> None:
        self._meter.received(namespace, size)

    def sent(self, namespace: str, size: int) -> None:
        self._meter.sent(namespace, size)

    def asked(self, namespace: str, hits: int, misses: int) -> None:
        self._meter.asked(namespace, hits, misses)
        with self._lock:
            count = self._counts.get(namespace)
            if count is None:
                if len(self._counts) >= MAX_NAMESPACES:
                    return
                count = self._counts[namespace] = [0, 0]
            count[0] += hits + misses
            count[1] += hits

    def seen(self, may_see: Callable[[str], bool]) -> tuple[int, int]:
        """(asked for, found), in the namespaces that somebody may see."""
        with self._lock:
            rows = [(name, asked, found) for name, (asked, found) in self._counts.items()]
        rows = [row for row in rows if may_see(row[0])]
        return sum(row[1] for row in rows), sum(row[2] for row in rows)
