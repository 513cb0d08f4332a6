"""FleetView: the fleet at one moment, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.fleet.limits import SHOWN_QUEUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.fleet.book import Book
    from worker.fleet.leases import OpenAction
    from worker.fleet.members import Member


class WorkerView(NamedTuple):
    """busy: slots in use. memory: bytes. state: ready, draining, silent or lost. since: when it first joined. done,
    failed: results since. warm: of the bytes of layers that its actions needed, the share that it had; 0 if they needed
    none."""

    worker: str
    name: str
    slots: int
    busy: int
    memory: int
    used_memory: int
    platforms: tuple[str, ...]
    labels: Mapping[str, str]
    state: str
    since: float
    done: int
    failed: int
    warm: float


class ActionView(NamedTuple):
    """worker: its id, "" while it waits. seconds: it runs, or waits, so long. expected: None if nobody ever timed
    it."""

    action: str
    lease: str
    worker: str
    seconds: float
    expected: float | None
    reason: str
    builds: tuple[str, ...]


class BuildView(NamedTuple):
    """running, queued: actions that it wants. done: results that it got."""

    build: str
    person: str
    since: float
    running: int
    queued: int
    done: int


class FleetView(NamedTuple):
    """running: one each lease. queued: the first of `queue_length`, those wanted first before others."""

    at: float
    workers: tuple[WorkerView, ...]
    running: tuple[ActionView, ...]
    queued: tuple[ActionView, ...]
    queue_length: int
    builds: tuple[BuildView, ...]


def view_of(book: Book) -> FleetView:
    """As it is now; what is given out does not change any more."""
    queued = [action for action in book.actions.values() if action.is_queued]
    return FleetView(
        book.now,
        tuple(_worker(member) for member in sorted(book.members, key=lambda member: (member.name, member.worker))),
        tuple(
            _action(lease.action, lease.lease, lease.member.worker, book.now - lease.started)
            for lease in book.leases.values()
        ),
        tuple(_action(action, "", "", book.now - action.since) for action in queued[:SHOWN_QUEUE]),
        len(queued),
        tuple(_build(book, name) for name in book.builds),
    )


def _worker(member: Member) -> WorkerView:
    if not member.present:
        state = "lost"
    elif member.drains or member.leaves:
        state = "draining"
    else:
        state = "silent" if member.silent else "ready"
    return WorkerView(
        member.worker,
        member.name,
        member.slots,
        len(member.leases),
        member.memory,
        member.used_memory,
        tuple(sorted(member.platforms)),
        dict(member.labels),
        state,
        member.since,
        member.done,
        member.failed,
        member.held / member.needed if member.needed else 0.0,
    )


def _action(action: OpenAction, lease: str, worker: str, seconds: float) -> ActionView:
    expected = action.needs.seconds if action.needs else None
    return ActionView(action.key, lease, worker, seconds, expected, action.reason, tuple(action.builds))


def _build(book: Book, name: str) -> BuildView:
    build = book.builds[name]
    running = sum(bool(book.actions[key].leases) for key in build.actions)
    return BuildView(name, build.person, build.since, running, len(build.actions) - running, build.done)
