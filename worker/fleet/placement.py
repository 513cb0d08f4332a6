"""Where an action runs: on the worker that will have finished it first, be it free now or worth waiting for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.fleet.limits import BANDWIDTH, GROUPS, WAIT_CANDIDATES, WORTH_WAITING

if TYPE_CHECKING:
    from worker.fleet.leases import OpenAction
    from worker.fleet.members import Member, Members


class Place(NamedTuple):
    """held: bytes of the action's layers and caches that the member has. patience: 0 if it is free; else seconds
    after which waiting for it has cost as much as moving the bytes to the best free worker. wait: expected seconds."""

    member: Member
    held: int
    wait: float = 0.0
    patience: float = 0.0


def place(now: float, action: OpenAction, free: int, able: int, members: Members) -> Place:
    """Choose for an action. free: the set of workers with room, not empty; able: of all that may take it.

    Of workers that hold equally much one that nobody waits for and that has nothing else to do is taken.
    """
    held, group = groups(action.items, free, members.holders)[0]
    best = Place(_calmest(group, members), held)
    missing = action.size - held
    if missing < WORTH_WAITING * BANDWIDTH or (action.patience is not None and now >= action.patience):
        return best
    return _worth_waiting(now, action, able & ~free, members, best) or best


def groups(items: tuple[tuple[str, int], ...], mask: int, holders: dict[str, int]) -> list[tuple[int, int]]:
    """The set cut into groups that hold the same bytes of the items: (bytes, group), the most bytes first."""
    everybody = 0
    found = [(0, mask)]
    for name, size in items:
        holding = holders.get(name, 0) & mask
        if holding == mask:
            everybody += size
        elif holding:
            cut: list[tuple[int, int]] = []
            for held, group in found:
                inside = group & holding
                if inside == group:
                    cut.append((held + size, group))
                elif not inside or len(found) >= GROUPS:
                    cut.append((held, group))
                else:
                    cut += ((held + size, inside), (held, group ^ inside))
            found = cut
    found.sort(key=lambda each: (-each[0], each[1] & -each[1]))
    return [(held + everybody, group) for held, group in found]


def _calmest(group: int, members: Members) -> Member:
    """One that is idle and not waited for if there is one among the first of the group, else the least busy of them."""
    best: Member | None = None
    best_rank = (0, 0.0)
    for number, member in enumerate(members.of(group)):
        rank = (len(member.awaited), len(member.leases) / member.slots)
        if best is None or rank < best_rank:
            best, best_rank = member, rank
        if best_rank == (0, 0.0) or number >= WAIT_CANDIDATES:
            break
    assert best is not None, "the set is not empty"
    return best


def _worth_waiting(now: float, action: OpenAction, busy: int, members: Members, free: Place) -> Place | None:
    """A busy worker with which the action starts sooner, bytes moved, than on the best free one."""
    best: Place | None = None
    best_loss = 0.0
    looked_at = 0
    for held, group in groups(action.items, busy, members.holders) if busy else ():
        saved = (held - free.held) / BANDWIDTH
        if saved < WORTH_WAITING:
            break
        for member in members.of(group):
            looked_at += 1
            if looked_at > WAIT_CANDIDATES:
                return best
            wait = member.free_in(now, action.memory)
            if wait is not None and wait - saved < best_loss:
                best, best_loss = Place(member, held, wait, saved), wait - saved
    return best
