"""Parties: builds, workers, actions and leases as the service knows them; the scheduler has its own view of each."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.fleet.service_limits import MAX_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc
    from buildgraph.v1 import fleet_pb2 as pb

    from cache.server.access import Caller
    from worker.fleet.build_outbox import BuildOutbox
    from worker.fleet.incoming import Execute, Hello
    from worker.fleet.log_buffer import LogBuffer
    from worker.fleet.outbox import Outbox


MAX_BROKEN = 1_000
"""Channels of one lease that are known to have lost something; with so many of them none goes on. A step has
32 connections to agents at once."""
MAX_MOUNTS = 10_000
"""Cache mounts that are remembered of one worker's leases; then it begins anew."""


@dataclass(slots=True, eq=False)
class BuildParty:
    """id: the scheduler's; no other caller's build has the same. outbox: of its stream, the last one if that broke.
    wants: actions by id; names: their ids by key. failed: how actions failed that it was told of, in case that it has
    not heard it. since: seconds since the epoch. away_since: when its stream broke, None while there is one. closing:
    it asks for nothing new, and ends with the last action. has_workers: it was told of a worker."""

    id: str
    caller: Caller
    namespace: str
    project: str
    outbox: BuildOutbox
    context: grpc.ServicerContext
    since: float
    wants: dict[str, Execute] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    failed: OrderedDict[str, pb.BuildEvent] = field(default_factory=OrderedDict)
    done: int = 0
    away_since: float | None = None
    closing: bool = False
    has_workers: bool = False

    def tell(self, event: pb.BuildEvent) -> None:
        self.outbox.put(event)

    def settle(self, action: str, key: str, event: pb.BuildEvent) -> None:
        """The action has ended, this is how."""
        self.wants.pop(action, None)
        self.names.pop(key, None)
        if event.HasField("done"):
            self.done += 1
            if event.done.outcome.HasField("failure"):
                self.failed[key] = event
                if len(self.failed) > MAX_FAILED:
                    self.failed.popitem(last=False)
        self.outbox.settle(key, event)
        self.finish_if_done()

    def finish_if_done(self) -> None:
        if self.closing and not self.wants:
            self.outbox.finish()


@dataclass(slots=True, eq=False)
class WorkerParty:
    """A worker that is there, or was until `left`, by the service's clock. joined: seconds since the epoch. draining:
    it ends by its own will. cordoned: it takes nothing new until somebody says otherwise. mounts: (namespace, cache)
    that its leases had."""

    hello: Hello
    caller: Caller
    outbox: Outbox[pb.SchedulerMessage]
    context: grpc.ServicerContext
    joined: float
    left: float | None = None
    draining: bool = False
    cordoned: bool = False
    mounts: set[tuple[str, str]] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.hello.name

    def had_mounts(self, namespace: str, caches: Iterable[str]) -> None:
        if len(self.mounts) > MAX_MOUNTS:
            self.mounts.clear()
        self.mounts.update((namespace, cache) for cache in caches)


@dataclass(slots=True, eq=False)
class ActionParty:
    """builds: that want it, in order, and how each said it. leases: by their ids, the first given first. shown: the
    lease whose log is followed. reason: why it waits. size: bytes of what each build said of it."""

    id: str
    namespace: str
    key: str
    size: int = 0
    builds: dict[str, Execute] = field(default_factory=dict)
    leases: dict[str, LeaseParty] = field(default_factory=dict)
    shown: LeaseParty | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """For people; "" if no build has said it yet."""
        return next((each.text for each in self.builds.values()), "")


@dataclass(slots=True, eq=False)
class LeaseParty:
    """serving: the build whose sealed messages go to the worker, and which gets the worker's; None if there is none.
    started: what the worker said of it; None if it has not. begun_by: by which stream it said so last. earlier: it is
    from before this start of the service, and may have begun long ago. reasons: by build, why it started there.
    outcome: what builds get if the result is taken. broken: channels of sealed messages of which one was lost. given:
    all secrets were sent on to the worker. unserved: the build that was to send more has gone.
    """

    id: str
    action: ActionParty
    worker: str
    log: LogBuffer
    serving: str | None = None
    started: pb.WorkerMessage.LeaseStarted | None = None
    begun_by: WorkerParty | None = None
    earlier: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    outcome: pb.ActionDone | None = None
    broken: set[str] = field(default_factory=set)
    given: bool = False
    unserved: bool = False
