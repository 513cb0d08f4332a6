"""RollCall: workers that join, for the first time or again, with what they hold and still execute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.fleet.decisions import Why
from worker.fleet.limits import LEASE_SECONDS, MAX_LEASES, MAX_WORKERS, NOBODY_SECONDS, ORPHAN_SECONDS
from worker.fleet.needs import kind_of

if TYPE_CHECKING:
    from worker.fleet.book import Book
    from worker.fleet.events import Held, WorkerJoined
    from worker.fleet.leases import OpenAction, OpenLease
    from worker.fleet.members import Member
    from worker.fleet.needs import Needs


class RollCall:
    """Has no state but the leases that the latest worker came back without."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._lost: list[OpenLease] = []

    def joined(self, event: WorkerJoined) -> None:
        """Take it in. One too many is left out: it gets nothing, as one without slots."""
        book = self._book
        member = book.members.get(event.worker)
        if member is None:
            if len(book.members) >= MAX_WORKERS and not self._make_room():
                return
            member = book.members.add(event.worker, book.now)
        member.present, member.drains, member.silent, member.leaves = True, event.drains, False, False
        member.name, member.slots, member.memory = event.name, event.slots, event.memory
        member.platforms, member.labels, member.key = event.platforms, event.labels, event.key
        book.absences.drop(member.worker)
        book.members.replace(member, event.layers, event.caches)
        book.refresh(member)
        held = {each.lease for each in event.leases}
        self._lost = [lease for name, lease in member.leases.items() if name not in held]
        for name, action in tuple(book.expired.items()):
            if name not in held and action.expired[name] == member.worker:
                self.forget(name)
        for each in event.leases:
            self._take(member, each)

    def lost(self) -> list[OpenLease]:
        """Leases that the worker that joined does not work on, though it had them."""
        lost, self._lost = self._lost, []
        return lost

    def _take(self, member: Member, held: Held) -> None:
        book = self._book
        lease = book.leases.get(held.lease)
        if lease is not None and lease.member is member:
            self.renew(lease)
        elif lease is not None:
            self.reject(member, held.lease, Why.NOT_HELD)
        elif not self.revive(member, held.lease):
            if book.is_own(held.lease):
                self.reject(member, held.lease, Why.NOT_HELD, held.action)
            else:
                self._adopt(member, held)

    def renew(self, lease: OpenLease) -> None:
        """It lives on."""
        lease.expires = self._book.now + LEASE_SECONDS
        self._book.expiries.put(lease.lease, (lease.expires, self._book.number()))

    def revive(self, member: Member, name: str) -> bool:
        """A lease expired, but its worker is still at it: it holds it again, if there is room. False: it does not."""
        book = self._book
        action = book.expired.get(name)
        if action is None or action.expired[name] != member.worker or not self._has_room(member, action):
            return False
        del book.expired[name], action.expired[name]
        action.attempts -= 1
        book.hold(name, action, member, book.now)
        text = book.note(action, Why.BACK, member)
        book.tell(action, "started", member.name, text)
        return True

    def may_come_back(self, action: OpenAction) -> bool:
        """Whether a worker whose lease of it expired may be at it still: it is there, or was a moment ago."""
        book = self._book
        held_by = (book.members.get(worker) for worker in action.expired.values())
        return any(
            member is not None and (member.present or book.now < member.left + NOBODY_SECONDS) for member in held_by
        )

    def is_expired(self, member: Member, name: str) -> bool:
        """The worker had this lease, and its result is still welcome."""
        action = self._book.expired.get(name)
        return action is not None and action.expired[name] == member.worker

    def forget(self, name: str) -> None:
        """A lease that expired does not come back, nor is its result welcome any more."""
        book = self._book
        action = book.expired.pop(name)
        del action.expired[name]
        if action.key in book.chances and not self.may_come_back(action):
            book.chances.put(action.key, (book.now, action.place))

    def reject(self, member: Member, name: str, why: Why, action: str = "") -> None:
        """The worker shall stop what it works on without a lease; nor is its result welcome any more. action: what it
        says that it is of, "" if it does not say."""
        book = self._book
        if self.is_expired(member, name):
            action = book.expired[name].key
            self.forget(name)
        if action:
            book.remark(action, why, member)
        book.say_revoked(member, name, why.sentence())

    def _adopt(self, member: Member, held: Held) -> None:
        """A lease of the scheduler before this one. Its build comes back, too, or nobody wants it any more."""
        book = self._book
        action = book.actions.get(held.action)
        if action is not None and not self._has_room(member, action):
            self.reject(member, held.lease, Why.NO_ROOM, held.action)
            return
        if action is None:
            if len(member.leases) >= member.slots:
                self.reject(member, held.lease, Why.NO_ROOM, held.action)
                return
            action = book.open_action(held.action, None)
            book.orphans.put(action.key, (book.now + ORPHAN_SECONDS, action.place))
        book.hold(held.lease, action, member, book.now - max(held.seconds_so_far, 0.0))
        text = book.note(action, Why.ADOPTED, member)
        book.tell(action, "started", member.name, text)

    def needs_known(self, action: OpenAction, needs: Needs) -> None:
        """A build says what an adopted action needs: its worker is that much fuller."""
        book = self._book
        action.takes(needs)
        book.change_kind(action, kind_of(needs, action.kind.tried))
        for lease in action.leases.values():
            lease.member.used_memory += needs.memory - lease.memory
            lease.memory = needs.memory
            book.lates.put(lease.lease, (lease.started + action.late_after, book.number()))
            book.pools.refresh(lease.member)

    def _has_room(self, member: Member, action: OpenAction) -> bool:
        return (
            len(member.leases) < member.slots
            and len(action.leases) < MAX_LEASES
            and action.memory <= member.memory - member.used_memory
            and all(lease.member is not member for lease in action.leases.values())
        )

    def _make_room(self) -> bool:
        """Forget the worker that is away for the longest time."""
        away = [member for member in self._book.members if not member.present and not member.leases]
        if not away:
            return False
        self._book.remove(min(away, key=lambda member: (member.left, member.place)))
        return True
