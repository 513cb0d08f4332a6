"""What the scheduler wants done: leases given and taken back, builds told, results taken or refused.

Reasons are sentences of `worker.fleet.decisions.Why`. They may hold names that others chose.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["queued", "started", "again"]


class Lease(NamedTuple):
    """Give this action to this worker. until: when the lease ends if it is not renewed."""

    worker: str
    lease: str
    action: str
    until: float


class Revoke(NamedTuple):
    """The worker shall stop; a result that comes all the same is refused. Its slot counts as free at once."""

    worker: str
    lease: str
    why: str


class Show(NamedTuple):
    """Of an action's leases one ended without a result, and this one goes on: its log is the action's."""

    action: str
    lease: str


class Tell(NamedTuple):
    """Tell a build how its action is. worker: where it started, "" otherwise. again: it had started, and waits."""

    build: str
    action: str
    state: State
    worker: str
    reason: str


class Settle(NamedTuple):
    """The result of this lease is the action's: these builds get it."""

    action: str
    lease: str
    worker: str
    builds: tuple[str, ...]


class Refuse(NamedTuple):
    """The result of this lease is thrown away."""

    worker: str
    lease: str
    why: str


class GiveUp(NamedTuple):
    """No worker will make it: the clients do. The scheduler has forgotten it."""

    builds: tuple[str, ...]
    action: str
    why: str


Command = Lease | Revoke | Show | Tell | Settle | Refuse | GiveUp
