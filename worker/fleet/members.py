"""Member: one worker as the scheduler sees it; Members: all of them, and who holds which layer.

Every worker has a place, and sets of workers are integers with a bit for each place: to cut two sets of a thousand
workers takes a tenth of a microsecond, and the order of their members is always the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.fleet.leases import CACHE
from worker.fleet.limits import MAX_LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker.fleet.leases import OpenAction, OpenLease
    from worker.fleet.needs import Kind


@dataclass(slots=True, eq=False)
class Member:
    """key: Ed25519, that it has shown to be its own. present: its stream is open. silent: a lease of it expired and it
    was not heard since. leaves: it is about to end, and takes nothing before it joins again. awaited: actions that wait
    for it, by key. left: when its stream broke. needed, held: bytes of layers of the actions it was given, and those of
    them that it had."""

    worker: str
    place: int
    since: float
    name: str = ""
    key: bytes = b""
    slots: int = 0
    memory: int = 0
    platforms: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)
    leases: dict[str, OpenLease] = field(default_factory=dict)
    awaited: dict[str, OpenAction] = field(default_factory=dict)
    used_memory: int = 0
    present: bool = True
    drains: bool = False
    silent: bool = False
    leaves: bool = False
    left: float = 0.0
    done: int = 0
    failed: int = 0
    needed: int = 0
    held: int = 0

    @property
    def bit(self) -> int:
        """The set of itself."""
        return 1 << self.place

    def fits(self, kind: Kind) -> bool:
        """It could execute such actions if it had nothing else to do."""
        return (
            self.slots > 0
            and (not kind.platform or kind.platform in self.platforms)
            and kind.memory <= self.memory
            and self.worker not in kind.tried
            and (not kind.workers or self.key in kind.workers)
            and all(self.labels.get(name) == value for name, value in kind.labels)
        )

    def has_room(self, kind: Kind) -> bool:
        """A slot and the memory, now."""
        return len(self.leases) < self.slots and kind.memory <= self.memory - self.used_memory

    def free_in(self, now: float, memory: int) -> float | None:
        """Seconds until one more action may start, after those that wait for it already. None: nobody can say."""
        ends = sorted((lease.remaining(now), lease.memory) for lease in self.leases.values())
        count = len(self.awaited) + len(ends) + 1 - self.slots
        if count > len(ends):
            return None
        room = self.memory - self.used_memory
        for number, (seconds, freed) in enumerate(ends, 1):
            room += freed
            if number >= count and room >= memory:
                return seconds
        return None


class Members:
    """All workers, also those that are away for a moment. holders: the set of workers by layer, or by cache."""

    def __init__(self) -> None:
        self.holders: dict[str, int] = {}
        self._by_worker: dict[str, Member] = {}
        self._by_place: list[Member | None] = []
        self._vacant: list[int] = []

    def __len__(self) -> int:
        return len(self._by_worker)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_worker.values())

    def get(self, worker: str) -> Member | None:
        """None if it is not known."""
        return self._by_worker.get(worker)

    def add(self, worker: str, now: float) -> Member:
        """A new one, at the lowest place that is vacant."""
        if self._vacant:
            self._vacant.sort(reverse=True)
            place = self._vacant.pop()
        else:
            place = len(self._by_place)
            self._by_place.append(None)
        member = Member(worker, place, now)
        self._by_place[place] = member
        self._by_worker[worker] = member
        return member

    def remove(self, member: Member) -> None:
        """It has no leases."""
        self.forget(member, tuple(member.items))
        del self._by_worker[member.worker]
        self._by_place[member.place] = None
        self._vacant.append(member.place)

    def learn(self, member: Member, items: Iterable[str]) -> None:
        """It holds these, too, as far as there is room to know."""
        bit, holders = member.bit, self.holders
        for item in items:
            if item not in member.items and len(member.items) < MAX_LAYERS:
                member.items.add(item)
                holders[item] = holders.get(item, 0) | bit

    def forget(self, member: Member, items: Iterable[str]) -> None:
        """It does not hold these."""
        for item in items:
            if item in member.items:
                member.items.discard(item)
                rest = self.holders[item] & ~member.bit
                if rest:
                    self.holders[item] = rest
                else:
                    del self.holders[item]

    def replace(self, member: Member, layers: Iterable[str], caches: Iterable[str]) -> None:
        """It holds these and nothing else."""
        wanted = {*layers, *(CACHE + name for name in caches)}
        self.forget(member, tuple(member.items - wanted))
        self.learn(member, sorted(wanted))

    def replace_caches(self, member: Member, caches: Iterable[str]) -> None:
        """Its caches are these; its layers stay."""
        wanted = {CACHE + name for name in caches}
        self.forget(member, [item for item in member.items if item.startswith(CACHE) and item not in wanted])
        self.learn(member, sorted(wanted))

    def of(self, mask: int) -> Iterator[Member]:
        """The members of a set, in the order of their places."""
        while mask:
            lowest = mask & -mask
            member = self._by_place[lowest.bit_length() - 1]
            assert member is not None, "a set names a place that nobody has"
            yield member
            mask ^= lowest
