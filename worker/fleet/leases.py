"""OpenAction: an action that somebody wants or executes; OpenLease: one worker's right to make its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.fleet.limits import (
    CACHE_BYTES,
    LATE_FACTOR,
    LATE_SECONDS,
    LATE_UNKNOWN,
    MAX_ITEMS,
    OVERDUE_SHARE,
    UNKNOWN_SECONDS,
)

if TYPE_CHECKING:
    from worker.fleet.members import Member
    from worker.fleet.needs import Kind, Needs

CACHE = "cache "
"""Before a cache mount's id where layers and caches stand together; no diff_id begins like this."""


@dataclass(slots=True, eq=False)
class OpenAction:
    """place: its number; equal ranks go in this order. since: when it came, or came back. needs: None if it was adopted
    and no build has said. builds: that want it, in order. expired: leases that ended without a result which is still
    welcome, and their workers. attempts: leases that ended without one, but for those that came back, and for leavings:
    those that workers gave back because they left. patience: when it stops to wait for a worker, None if it never
    waited. waits_for: that worker. reason: of the latest decision, for people."""

    key: str
    place: int
    kind: Kind
    needs: Needs | None
    since: float
    items: tuple[tuple[str, int], ...] = ()
    size: int = 0
    critical: float = 0.0
    builds: dict[str, None] = field(default_factory=dict)
    leases: dict[str, OpenLease] = field(default_factory=dict)
    expired: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    leavings: int = 0
    patience: float | None = None
    waits_for: Member | None = None
    reason: str = ""

    @property
    def is_queued(self) -> bool:
        """It waits for a worker, perhaps for a certain one."""
        return not self.leases and bool(self.builds)

    def takes(self, needs: Needs) -> None:
        """These needs count from now on."""
        self.needs = needs
        items = [*needs.layers, *((CACHE + name, CACHE_BYTES) for name in needs.caches)]
        items.sort(key=lambda item: (-item[1], item[0]))
        self.items = tuple(items[:MAX_ITEMS])
        self.size = sum(size for _, size in self.items)

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.needs.memory if self.needs else 0

    @property
    def seconds(self) -> float:
        """Expected, or what stands for it."""
        known = self.needs.seconds if self.needs else None
        return UNKNOWN_SECONDS if known is None else known

    @property
    def late_after(self) -> float:
        """Seconds after which a worker is late with it."""
        known = self.needs.seconds if self.needs else None
        return LATE_UNKNOWN if known is None else max(LATE_FACTOR * known, LATE_SECONDS)


@dataclass(slots=True, eq=False)
class OpenLease:
    """started, expires: by the clock of the events. build: on whose behalf it was given, "" for nobody's; charged: the
    slot-seconds that it was charged in advance. memory: bytes that it holds on its worker."""

    lease: str
    member: Member
    action: OpenAction
    started: float
    expires: float
    memory: int
    build: str = ""
    person: str = ""
    charged: float = 0.0

    def remaining(self, now: float) -> float:
        """Seconds that it is expected to run on."""
        elapsed = now - self.started
        return max(self.action.seconds - elapsed, elapsed * OVERDUE_SHARE)
