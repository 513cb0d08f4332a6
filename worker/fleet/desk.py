"""Desk: all that the service knows, behind one lock, with the scheduler; whoever has an event brings it here."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

import grpc

from cache.server.refusal import Refused
from worker.fleet.carrying import Carrying
from worker.fleet.events import GaveBack, Unserved
from worker.fleet.log_buffer import LogBuffer
from worker.fleet.parties import ActionParty, LeaseParty
from worker.fleet.rights import may_take
from worker.fleet.scheduler import Scheduler
from worker.fleet.service_limits import MAX_TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from buildgraph.v1 import fleet_pb2 as pb

    from worker.fleet.commands import Command
    from worker.fleet.events import Event
    from worker.fleet.lease_proofs import LeaseProofs
    from worker.fleet.log_buffer import LogSpace
    from worker.fleet.mount_shelf import MountShelf
    from worker.fleet.parties import BuildParty, WorkerParty

RECENT = 2_000
RECENT_SECONDS = 5.0
"""Results that are remembered, and how long, for builds that looked into the cache just before they came."""
RECENT_BYTES = 32 << 20
"""Of all of them; most have less than a kilobyte."""


class Say(Protocol):
    """Writes one line of the journal; never fails."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


class Desk:
    """`lock` is held by whoever calls a method or looks at what is here. Nothing behind it waits for anybody."""

    def __init__(
        self, say: Say, space: LogSpace, proofs: LeaseProofs, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: seconds, never back."""
        self.lock = threading.Lock()
        self.say = say
        self.space = space
        self.clock = clock
        self.boot = secrets.token_hex(16)
        self.scheduler = Scheduler(self.boot)
        self.builds: dict[str, BuildParty] = {}
        self.workers: dict[str, WorkerParty] = {}
        self.actions: dict[str, ActionParty] = {}
        self.leases: dict[str, LeaseParty] = {}
        self.texts: OrderedDict[str, str] = OrderedDict()
        """What actions are called, by id, for questions about them later."""
        self._recent: OrderedDict[str, tuple[float, pb.ActionDone]] = OrderedDict()
        """The latest results by action's id, and when they came."""
        self._recent_bytes = 0
        self.bodies = 0
        """Bytes that all that is wanted takes."""
        self.cordoned: set[str] = set()
        """Names of workers that somebody said shall take nothing new, whenever they join."""
        self.changes = 0
        """Grows with everything that people may want to see."""
        self.closed = False
        self.proofs = proofs
        """That workers were given their leases."""
        self.mounts: MountShelf | None = None
        """Snapshots of cache mounts; None if workers keep theirs for themselves."""
        self.seconds: Callable[[float], None] = lambda _: None
        """Is told what each decision took."""
        self._carrying = Carrying(self)
        self._events: deque[Event] = deque()

    def handle(self, event: Event) -> list[Command]:
        """Have the scheduler decide, and do what it says, with all that follows from that. What the first event led
        to. Not to be called while commands are carried out: `follow` then."""
        commands = self._decide(event)
        self._carrying.carry(commands)
        while self._events:
            self._carrying.carry(self._decide(self._events.popleft()))
        return commands

    def decide(self, event: Event) -> list[Command]:
        """The same in two parts: `carry` has to come next."""
        return self._decide(event)

    def carry(self, commands: list[Command]) -> None:
        self._carrying.carry(commands)
        while self._events:
            self._carrying.carry(self._decide(self._events.popleft()))

    def follow(self, event: Event) -> None:
        """Handle this when the commands at hand are done."""
        self._events.append(event)

    def _decide(self, event: Event) -> list[Command]:
        since = time.perf_counter()
        commands = self.scheduler.handle(event)
        self.seconds(time.perf_counter() - since)
        self.changes += bool(commands)
        return commands

    # what is known

    def check_open(self) -> None:
        """Raises Refused once the server stops."""
        if self.closed:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "the server is about to stop; try again in a moment")

    def workers_for(self, namespace: str) -> list[WorkerParty]:
        """Those that take actions of a namespace."""
        return [
            worker for worker in self.workers.values()
            if worker.left is None and not (worker.draining or worker.cordoned)
            and may_take(worker.caller, namespace)
        ]  # fmt: skip

    def now(self) -> float:
        return self.clock()

    def action(self, namespace: str, key: str, name: str) -> ActionParty:
        """The one of this name, which may be new."""
        found = self.actions.get(name)
        if found is None:
            found = self.actions[name] = ActionParty(name, namespace, key)
        return found

    def lease(self, name: str, action: ActionParty, worker: str) -> LeaseParty:
        """A new one."""
        lease = LeaseParty(name, action, worker, LogBuffer(self.space))
        self.leases[name] = action.leases[name] = lease
        return lease

    def drop_lease(self, lease: LeaseParty) -> None:
        """It is over, or was never known to be otherwise. If its log was shown, the scheduler says which one is now."""
        self.leases.pop(lease.id, None)
        lease.action.leases.pop(lease.id, None)
        lease.log.end()
        lease.log.let_go()
        if lease.action.shown is lease:
            lease.action.shown = None
        self.tidy(lease.action)

    def give_back(self, lease: LeaseParty, why: str, *, leaving: bool = False) -> None:
        """Its worker will not end it: the action goes elsewhere. leaving: for the worker ends."""
        self.drop_lease(lease)
        self.handle(GaveBack(self.now(), lease.worker, lease.id, why, leaving))

    def unserve(self, lease: LeaseParty) -> None:
        """The build that was to send what is secret for it has gone: it begins again for those that are left."""
        self.drop_lease(lease)
        self.handle(Unserved(self.now(), lease.worker, lease.id))

    def say_started(self, lease: LeaseParty) -> None:
        """To all builds that want its action."""
        for name in lease.action.builds:
            self._carrying.say_started(self.builds[name], lease)

    def drop_action(self, action: ActionParty) -> None:
        """It is settled, given up or not wanted: nothing of it is left."""
        action.shown = None
        for lease in tuple(action.leases.values()):
            self.drop_lease(lease)
        if self.actions.get(action.id) is action:
            del self.actions[action.id]
            self.bodies -= action.size
        self.changes += 1

    def tidy(self, action: ActionParty) -> None:
        """Forget an action that nobody wants and nobody executes."""
        if not action.builds and not action.leases and self.actions.get(action.id) is action:
            del self.actions[action.id]
            self.bodies -= action.size

    def name_action(self, action: ActionParty) -> None:
        """Remember what it is called."""
        self.texts[action.id] = action.text
        self.texts.move_to_end(action.id)
        if len(self.texts) > MAX_TEXTS:
            self.texts.popitem(last=False)

    def remember(self, action: str, done: pb.ActionDone) -> None:
        """A result was settled."""
        _, before = self._recent.pop(action, (0.0, None))
        self._recent[action] = self.now(), done
        self._recent_bytes += done.ByteSize() - (0 if before is None else before.ByteSize())
        while len(self._recent) > RECENT or self._recent_bytes > RECENT_BYTES:
            _, (_, oldest) = self._recent.popitem(last=False)
            self._recent_bytes -= oldest.ByteSize()

    def just_made(self, action: str) -> pb.ActionDone | None:
        """The result of an action that ended a moment ago; later the cache knows better whether its blobs are there."""
        made, done = self._recent.get(action, (0.0, None))
        return done if self.now() - made < RECENT_SECONDS else None


def action_id(namespace: str, name: str) -> str:
    """As the scheduler calls an action. name: of `action_name`, often the key alone."""
    return f"{namespace}\0{name}"
