"""Book: all that the scheduler knows; its methods keep the parts in step, and decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.fleet.commands import Lease, Revoke, Show, Tell
from worker.fleet.decisions import Decision, History, Why
from worker.fleet.fairness import Shares
from worker.fleet.leases import OpenAction, OpenLease
from worker.fleet.limits import LEASE_SECONDS
from worker.fleet.members import Members
from worker.fleet.needs import Kind, kind_of
from worker.fleet.pools import Pools, build_key, person_key
from worker.fleet.ranked import Ranked

if TYPE_CHECKING:
    from worker.fleet.builds import OpenBuild
    from worker.fleet.commands import Command, State
    from worker.fleet.members import Member
    from worker.fleet.needs import Needs
    from worker.fleet.placement import Place


class Book:
    """actions, leases, builds: what is open, by key. expired: actions by leases whose late result is still welcome.
    commands: of the event that is being handled. The Ranked are moments: when leases expire and are late, when actions
    have waited long enough for a worker, when adopted ones have for a build, when those who left are given up; chances:
    when actions are given up that nobody may begin any more, but whose worker may come back."""

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.now = 0.0
        self.members = Members()
        self.pools = Pools(self.members)
        self.shares = Shares()
        self.history = History()
        self.builds: dict[str, OpenBuild] = {}
        self.actions: dict[str, OpenAction] = {}
        self.leases: dict[str, OpenLease] = {}
        self.expired: dict[str, OpenAction] = {}
        self.commands: list[Command] = []
        self.expiries = Ranked()
        self.lates = Ranked()
        self.patience = Ranked()
        self.orphans = Ranked()
        self.absences = Ranked()
        self.chances = Ranked()
        self._number = 0

    def number(self) -> int:
        """The next one."""
        self._number += 1
        return self._number

    def is_own(self, lease: str) -> bool:
        """This scheduler gave the lease, not one before it."""
        return lease.startswith(self.boot + ".")

    # Actions

    def open_action(self, key: str, needs: Needs | None, person: str = "") -> OpenAction:
        """Nobody wants it yet. person: whose build is going to, "" if there is none."""
        action = OpenAction(key, self.number(), kind_of(needs) if needs else Kind(), None, self.now)
        if needs:
            action.takes(needs)
        self.actions[key] = action
        self.pools.enter(action.kind, person)
        return action

    def change_kind(self, action: OpenAction, kind: Kind) -> None:
        """It is not queued."""
        self.pools.enter(kind)
        self.pools.leave(action.kind)
        action.kind = kind

    def want(self, build: OpenBuild, action: OpenAction) -> None:
        """The build wants it."""
        action.builds[build.build] = None
        build.actions[action.key] = None
        self.orphans.drop(action.key)

    def enqueue(self, action: OpenAction) -> None:
        """It waits, for all builds that want it; its rank may have changed. Not if it waits for a certain worker,
        or only for one that comes back with it."""
        if action.waits_for is None and action.key not in self.chances:
            pool = self.pools[action.kind]
            for build in action.builds:
                pool.put(action, build, self.builds[build].person)

    def dequeue(self, action: OpenAction) -> None:
        """It waits no more; it may not have waited."""
        pool = self.pools[action.kind]
        for build in action.builds:
            pool.drop(action, build, self.builds[build].person)
        self._stop_waiting(action)

    def park(self, action: OpenAction, place: Place) -> None:
        """It waits for one worker, as long as its patience lasts."""
        self.dequeue(action)
        if action.patience is None:
            action.patience = self.now + place.patience
        action.waits_for = place.member
        place.member.awaited[action.key] = action
        self.patience.put(action.key, (action.patience, action.place))

    def unpark(self, action: OpenAction) -> None:
        """It is queued like any other again."""
        self._stop_waiting(action)
        self.enqueue(action)

    def _stop_waiting(self, action: OpenAction) -> None:
        if action.waits_for is not None:
            del action.waits_for.awaited[action.key]
            action.waits_for = None
            self.patience.drop(action.key)
        self.chances.drop(action.key)

    def forget(self, action: OpenAction) -> tuple[str, ...]:
        """It is settled, given up or not wanted, and has no leases: the builds that wanted it."""
        self.dequeue(action)
        for lease in action.expired:
            del self.expired[lease]
        for build in action.builds:
            del self.builds[build].actions[action.key]
        self.pools.leave(action.kind)
        self.orphans.drop(action.key)
        del self.actions[action.key]
        return tuple(action.builds)

    # Leases

    def give(self, action: OpenAction, member: Member, build: str) -> OpenLease:
        """A new lease, charged to the build; "" for nobody."""
        lease = self.hold(f"{self.boot}.{self.number()}", action, member, self.now)
        for name, size in action.items:
            member.needed += size
            if name in member.items:
                member.held += size
        if build:
            lease.build, lease.person, lease.charged = build, self.builds[build].person, action.seconds
            self._charge(lease, lease.charged)
        self.commands.append(Lease(member.worker, lease.lease, action.key, lease.expires))
        return lease

    def hold(self, name: str, action: OpenAction, member: Member, started: float) -> OpenLease:
        """Note that a member executes an action."""
        self.dequeue(action)
        lease = OpenLease(name, member, action, started, self.now + LEASE_SECONDS, action.memory)
        self.leases[name] = member.leases[name] = action.leases[name] = lease
        member.used_memory += lease.memory
        number = self.number()
        self.expiries.put(name, (lease.expires, number))
        self.lates.put(name, (started + action.late_after, number))
        self.pools.refresh(member)
        return lease

    def end(self, lease: OpenLease) -> None:
        """It is no more. Its action is queued again only by who asks for it."""
        member = lease.member
        del self.leases[lease.lease], member.leases[lease.lease], lease.action.leases[lease.lease]
        member.used_memory -= lease.memory
        self.expiries.drop(lease.lease)
        self.lates.drop(lease.lease)
        if lease.build:
            self._charge(lease, self.now - lease.started - lease.charged)
        self.refresh(member)

    def go_on(self, action: OpenAction) -> None:
        """A lease of it ended without a result, and others are left: they may get a second worker again, and the log of
        the first of them is shown."""
        for lease in action.leases.values():
            self.lates.put(lease.lease, (lease.started + action.late_after, self.number()))
        self.commands.append(Show(action.key, next(iter(action.leases))))

    def _charge(self, lease: OpenLease, seconds: float) -> None:
        self.shares.add(self.now, person_key(lease.person), seconds)
        if lease.build in self.builds:
            self.shares.add(self.now, build_key(lease.build), seconds)

    def revoke(self, lease: OpenLease, why: str) -> None:
        """End it, and have its worker stop."""
        self.end(lease)
        self.say_revoked(lease.member, lease.lease, why)

    def say_revoked(self, member: Member, lease: str, why: str) -> None:
        """A worker that left hears nothing; it hears it when it comes back with the lease."""
        if member.present:
            self.commands.append(Revoke(member.worker, lease, why))

    # Workers

    def refresh(self, member: Member) -> None:
        """It has changed: who waited for it looks again, and all sets of workers are right."""
        self.pools.refresh(member)
        for action in tuple(member.awaited.values()):
            self.unpark(action)

    def remove(self, member: Member) -> None:
        """It is away, has no leases and nobody waits for it."""
        self.absences.drop(member.worker)
        self.pools.vacate(member)
        self.members.remove(member)

    # What people see

    def note(self, action: OpenAction, why: Why, member: Member | None = None, **details: object) -> str:
        """Keep a decision, which is why the action is as it is now. Its sentence."""
        action.reason = self.remark(action.key, why, member, **details)
        return action.reason

    def remark(self, key: str, why: Why, member: Member | None = None, **details: object) -> str:
        """Keep a decision that changes nothing for the action, which may not be open. Its sentence."""
        text = why.sentence(worker=member.name if member else "", **details)
        self.history.note(key, Decision(self.now, why, member.worker if member else "", text))
        return text

    def tell(self, action: OpenAction, state: State, worker: str, reason: str) -> None:
        """All builds that want it."""
        for build in action.builds:
            self.commands.append(Tell(build, action.key, state, worker, reason))
