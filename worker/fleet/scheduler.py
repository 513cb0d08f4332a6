"""Scheduler: who executes which action when and where. A pure state machine: events in, commands out, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.fleet.book import Book
from worker.fleet.builds import OpenBuild
from worker.fleet.commands import GiveUp, Refuse, Settle, Tell
from worker.fleet.decisions import Why
from worker.fleet.events import (
    BuildClosed,
    BuildOpened,
    Finished,
    GaveBack,
    Renewed,
    Tick,
    Unserved,
    Unwanted,
    Wanted,
    WorkerDrains,
    WorkerJoined,
    WorkerLayers,
    WorkerLeft,
    WorkerResumes,
)
from worker.fleet.fleet_view import view_of
from worker.fleet.hopeless import Hopeless
from worker.fleet.leases import CACHE
from worker.fleet.limits import (
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    MAX_BUILDS,
    MAX_LEAVINGS,
    MAX_TEXT,
    MAX_WANTED,
    MAX_WANTED_PER_BUILD,
    NOBODY_SECONDS,
)
from worker.fleet.matching import Matching
from worker.fleet.needs import kind_of
from worker.fleet.pools import build_key, person_key
from worker.fleet.roll_call import RollCall

if TYPE_CHECKING:
    from worker.fleet.commands import Command
    from worker.fleet.decisions import Decision
    from worker.fleet.events import Event
    from worker.fleet.fleet_view import FleetView
    from worker.fleet.leases import OpenAction, OpenLease
    from worker.fleet.members import Member


class Scheduler:
    """Equal events give equal commands. Not safe for threads: whoever calls it holds a lock."""

    def __init__(self, boot: str = "0") -> None:
        """boot: of this start alone, without a dot: leases of a scheduler before it are told by it."""
        self._book = Book(boot)
        self._matching = Matching(self._book)
        self._hopeless = Hopeless(self._book)
        self._roll_call = RollCall(self._book)
        self._fresh: list[tuple[str, OpenAction]] = []

    def handle(self, event: Event) -> list[Command]:
        """What follows from an event, in the order in which it is to be done. An event about what is not known (any
        more) changes nothing."""
        book = self._book
        book.now = max(book.now, event.now)
        book.commands = []
        self._dispatch(event)
        self._pass_time()
        self._matching.match()
        self._hopeless.give_up()
        self._tell_fresh()
        commands, book.commands = book.commands, []
        return commands

    def declined(self, now: float, action: str, why: Why) -> str:
        """An action was not even asked for, since whoever passes events on has bounds, too. The reason's sentence."""
        self._book.now = max(self._book.now, now)
        return self._book.remark(action, why)

    def explain(self, action: str) -> tuple[Decision, ...]:
        """What was decided about an action, oldest first; empty if nothing is remembered."""
        return self._book.history.of(action)

    def beginning_with(self, text: str) -> tuple[str, ...]:
        """Actions that are remembered and whose key begins like this."""
        return self._book.history.beginning_with(text)

    def snapshot(self) -> FleetView:
        """The fleet as it is now."""
        return view_of(self._book)

    def _dispatch(self, event: Event) -> None:
        match event:
            case Wanted():
                self._wanted(event)
            case Finished():
                self._finished(event)
            case Renewed():
                self._renewed(event)
            case WorkerLayers():
                self._layers(event)
            case GaveBack():
                self._gave_back(event)
            case Unserved():
                self._unserved(event)
            case Unwanted():
                self._unwanted(event.build, event.action)
            case BuildOpened():
                if event.build not in self._book.builds and len(self._book.builds) < MAX_BUILDS:
                    self._book.builds[event.build] = OpenBuild(event.build, event.person, self._book.now)
            case BuildClosed():
                self._closed(event.build)
            case WorkerJoined():
                self._roll_call.joined(event)
                self._put_back_lost()
            case WorkerLeft() | WorkerDrains() | WorkerResumes():
                self._changed(event)
            case Tick():
                pass

    # Builds

    def _wanted(self, event: Wanted) -> None:
        book = self._book
        build = book.builds.get(event.build)
        if build is None:
            self._decline(event, Why.NOT_OPEN)
            return
        action = book.actions.get(event.action)
        if event.action not in build.actions and len(build.actions) >= MAX_WANTED_PER_BUILD:
            self._decline(event, Why.TOO_MANY_OF_BUILD)
            return
        if action is None:
            if len(book.actions) >= MAX_WANTED:
                self._decline(event, Why.TOO_MANY)
                return
            if not book.pools.may_enter(kind_of(event.needs), build.person):
                self._decline(event, Why.TOO_MANY_KINDS)
                return
            action = book.open_action(event.action, event.needs, build.person)
        elif action.needs is None:
            self._roll_call.needs_known(action, event.needs)
        action.critical = max(action.critical, event.needs.critical)
        book.want(build, action)
        if action.leases:
            lease = next(iter(action.leases.values()))
            text = book.note(action, Why.RUNS, lease.member)
            book.commands.append(Tell(event.build, action.key, "started", lease.member.name, text))
        else:
            book.enqueue(action)
            self._fresh.append((event.build, action))

    def _decline(self, event: Wanted, why: Why) -> None:
        self._book.commands.append(GiveUp((event.build,), event.action, self._book.remark(event.action, why)))

    def _tell_fresh(self) -> None:
        """Builds whose actions did not start at once hear why."""
        book = self._book
        for build, action in self._fresh:
            if not action.is_queued or build not in action.builds or action.key not in book.actions:
                continue
            if action.waits_for is None and action.key not in book.chances:
                pool = book.pools[action.kind]
                busy = Why.NO_TRUSTED_SLOT if pool.kind.workers else Why.NO_SLOT
                why = busy if pool.able else Why.AWAY if pool.fits else Why.NOBODY_YET
                book.note(action, why)
            book.commands.append(Tell(build, action.key, "queued", "", action.reason))
        self._fresh.clear()

    def _unwanted(self, build: str, key: str) -> None:
        book = self._book
        action = book.actions.get(key)
        if action is None or build not in action.builds:
            return
        book.pools[action.kind].drop(action, build, book.builds[build].person)
        del action.builds[build], book.builds[build].actions[key]
        if not action.builds:
            text = book.note(action, Why.UNWANTED)
            for lease in tuple(action.leases.values()):
                book.revoke(lease, text)
            book.forget(action)

    def _closed(self, build: str) -> None:
        book = self._book
        if build not in book.builds:
            return
        for key in tuple(book.builds[build].actions):
            self._unwanted(build, key)
        del book.builds[build]
        book.shares.drop(build_key(build))
        names = {build_key(each) for each in book.builds} | {person_key(each.person) for each in book.builds.values()}
        book.shares.forget(book.now, names)

    # Results

    def _finished(self, event: Finished) -> None:
        book = self._book
        member = book.members.get(event.worker)
        if member is None:
            return
        self._heard(member)
        book.members.learn(member, event.layers)
        lease = book.leases.get(event.lease)
        action = lease.action if lease else book.expired.get(event.lease)
        if action is None or (lease.member if lease else book.members.get(action.expired[event.lease])) is not member:
            if member.present:
                book.commands.append(Refuse(member.worker, event.lease, Why.NOT_HELD.sentence()))
            return
        self._settle(action, member, event, lease)

    def _settle(self, action: OpenAction, member: Member, event: Finished, lease: OpenLease | None) -> None:
        book = self._book
        seconds = book.now - lease.started if lease else 0.0
        why = Why.DONE if event.ok else Why.FAILED
        book.note(action, why, member, seconds=seconds)
        member.done += 1
        member.failed += not event.ok
        if action.needs:
            book.members.learn(member, [CACHE + cache for cache in action.needs.caches])
        if lease:
            book.end(lease)
        for build in action.builds:
            book.builds[build].done += 1
        book.commands.append(Settle(action.key, event.lease, member.worker, tuple(action.builds)))
        for other in tuple(action.leases.values()):
            book.revoke(other, book.remark(action.key, Why.FIRST, other.member, first=member.name))
        book.forget(action)

    def _gave_back(self, event: GaveBack) -> None:
        book = self._book
        member, lease = book.members.get(event.worker), book.leases.get(event.lease)
        if member is None:
            return
        self._heard(member)
        if event.leaving:
            member.leaves = True
            book.refresh(member)
        if lease is None or lease.member is not member:
            if self._roll_call.is_expired(member, event.lease):
                self._roll_call.forget(event.lease)
            return
        action = lease.action
        book.end(lease)
        if event.leaving and action.leavings < MAX_LEAVINGS:
            action.leavings += 1
        else:
            action.attempts += 1
            book.change_kind(action, action.kind._replace(tried=action.kind.tried | {member.worker}))
        self._again(action, Why.GAVE_BACK, member, event.why[:MAX_TEXT])

    def _unserved(self, event: Unserved) -> None:
        """Its worker may get it again, and it does not count as an attempt: nothing is wrong with either."""
        book = self._book
        member, lease = book.members.get(event.worker), book.leases.get(event.lease)
        if member is None or lease is None or lease.member is not member:
            if member is not None:
                self._roll_call.reject(member, event.lease, Why.NOT_HELD)
            return
        book.revoke(lease, Why.UNSERVED.sentence(worker=member.name))
        self._again(lease.action, Why.UNSERVED, member)

    def _again(self, action: OpenAction, why: Why, member: Member, text: str = "") -> None:
        """A lease of it ended without a result, so it goes back to its old place, or is given up."""
        book = self._book
        reason = book.note(action, why, member, text=text)
        if action.leases:
            book.go_on(action)
            return
        if not action.builds:
            book.forget(action)
            return
        is_last = action.attempts >= MAX_ATTEMPTS
        if is_last and not self._roll_call.may_come_back(action):
            self._hopeless.drop(action, Why.ATTEMPTS, attempts=action.attempts)
            return
        action.patience, action.since = None, book.now
        book.tell(action, "again", "", reason)
        if is_last:
            book.chances.put(action.key, (book.now + NOBODY_SECONDS, action.place))
        else:
            book.enqueue(action)

    # Workers

    def _changed(self, event: WorkerLeft | WorkerDrains | WorkerResumes) -> None:
        book = self._book
        member = book.members.get(event.worker)
        if member is None or not member.present:
            return
        match event:
            case WorkerLeft():
                member.present, member.left = False, book.now
                book.absences.put(member.worker, (book.now + NOBODY_SECONDS, book.number()))
            case WorkerDrains():
                member.drains = True
            case WorkerResumes():
                member.drains = False
        book.refresh(member)

    def _layers(self, event: WorkerLayers) -> None:
        member = self._book.members.get(event.worker)
        if member is not None and member.present:
            self._heard(member)
            self._book.members.forget(member, sorted(event.removed))
            self._book.members.learn(member, sorted(event.added))
            if event.caches is not None:
                self._book.members.replace_caches(member, event.caches)

    def _heard(self, member: Member) -> None:
        if member.silent:
            member.silent = False
            self._book.refresh(member)

    def _renewed(self, event: Renewed) -> None:
        book = self._book
        member = book.members.get(event.worker)
        if member is None or not member.present:
            return
        for name in event.leases:
            lease = book.leases.get(name)
            if lease is not None and lease.member is member:
                self._roll_call.renew(lease)
            elif not self._roll_call.revive(member, name):
                self._roll_call.reject(member, name, Why.NOT_HELD)
        self._heard(member)

    def _put_back_lost(self) -> None:
        for lease in self._roll_call.lost():
            self._book.end(lease)
            lease.action.attempts += 1
            self._again(lease.action, Why.LOST, lease.member)

    # Time

    def _pass_time(self) -> None:
        """What is due at this moment, after the event itself: a result that comes in time with the clock is taken."""
        book = self._book
        for name in book.expiries.due(book.now):
            self._expire(book.leases[name])
        for key in book.patience.due(book.now):
            book.unpark(book.actions[key])
        for key in book.orphans.due(book.now):
            action = book.actions[key]
            text = book.note(action, Why.UNWANTED)
            for lease in tuple(action.leases.values()):
                book.revoke(lease, text)
            book.forget(action)
        for key in book.chances.due(book.now):
            action = book.actions[key]
            self._hopeless.drop(action, Why.ATTEMPTS, attempts=action.attempts)
        for worker in book.absences.due(book.now):
            member = book.members.get(worker)
            if member is None or member.present:
                continue
            if member.leases:
                book.absences.put(worker, (book.now + LEASE_SECONDS, book.number()))
            else:
                book.remove(member)

    def _expire(self, lease: OpenLease) -> None:
        """Its worker gets nothing new before it is heard; its result, should it come, is welcome until there is one."""
        book, action, member = self._book, lease.action, lease.member
        member.silent = True
        book.end(lease)
        action.attempts += 1
        action.expired[lease.lease] = member.worker
        book.expired[lease.lease] = action
        self._again(action, Why.EXPIRED, member)
