"""Matching: what waits is given to workers that have room, and what is late to a second one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.fleet.decisions import Why, size
from worker.fleet.limits import BANDWIDTH, MAX_ATTEMPTS, MAX_LEASES
from worker.fleet.placement import place

if TYPE_CHECKING:
    from worker.fleet.book import Book
    from worker.fleet.leases import OpenAction
    from worker.fleet.placement import Place
    from worker.fleet.pools import Next


class Matching:
    """Has no state but the leases that are late and have no second worker yet."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._late: dict[str, None] = {}

    def match(self) -> None:
        """Start all that can start now. Each round takes one action out of the lines, so there is an end."""
        book = self._book
        while (following := book.pools.next(book.now, book.shares)) is not None:
            action = book.actions[following.action]
            pool = book.pools[action.kind]
            choice = place(book.now, action, pool.open, pool.able, book.members)
            if choice.patience:
                self._wait(action, choice)
            else:
                self._start(action, choice, following)
        self._give_late_to_second()

    def _wait(self, action: OpenAction, choice: Place) -> None:
        book, member = self._book, choice.member
        book.park(action, choice)
        moved = size(round(choice.patience * BANDWIDTH))
        book.note(action, Why.WAITS, member, size=moved, seconds=choice.wait)

    def _start(self, action: OpenAction, choice: Place, following: Next) -> None:
        book, member = self._book, choice.member
        book.note(action, following.why, None, person=following.person, seconds=action.critical)
        if action.size == 0:
            why = Why.ANYWHERE
        elif choice.held == 0:
            why = Why.FREE
        elif action.patience is not None and choice.held == action.size:
            why = Why.WAITED
        else:
            why = Why.HAS_ALL_LAYERS if choice.held == action.size else Why.HAS_LAYERS
        details = {"held": size(choice.held), "size": size(action.size)}
        text = book.note(action, why, member, **details)
        book.give(action, member, following.build)
        book.tell(action, "started", member.name, text)

    def _give_late_to_second(self) -> None:
        """Nothing that waits could start now, so what has room may help those that are late."""
        book = self._book
        for name in book.lates.due(book.now):
            self._late[name] = None
        has_room = any(pool.open for pool in book.pools)
        if not has_room and len(self._late) <= 2 * len(book.leases):
            return
        for name in tuple(self._late):
            lease = book.leases.get(name)
            # With one lease less it is due again: `Book.go_on`.
            if lease is None or len(lease.action.leases) >= MAX_LEASES or lease.action.attempts >= MAX_ATTEMPTS:
                del self._late[name]
                continue
            action = lease.action
            pool = book.pools[action.kind]
            others = pool.open & ~lease.member.bit
            if not others or not action.builds or action.needs is None:
                continue
            del self._late[name]
            choice = place(book.now, action, others, 0, book.members)
            member = choice.member
            text = book.note(action, Why.LATE, member, first=lease.member.name)
            book.give(action, member, "")
            book.tell(action, "started", member.name, text)
