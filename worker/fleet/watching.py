"""Watching: what people ask of the fleet: how it is, why something was decided, and to leave a worker alone."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from cache.server.access import Caller
from cache.server.namespaces import checked_namespace
from cache.server.refusal import Refused, invalid, not_found
from worker.fleet.action_name import named_key
from worker.fleet.arrivals import tell_builds
from worker.fleet.desk import action_id
from worker.fleet.events import WorkerDrains, WorkerResumes
from worker.fleet.fleet_state import StateMaker
from worker.fleet.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from cache.server.lookups import Lookups
    from worker.fleet.cordons import Cordons
    from worker.fleet.desk import Desk
    from worker.fleet.gate import Gate

WATCH_SECONDS = 1.0
"""Between two states of one watcher, at least."""
SHORTEST = 6
"""Hex digits of a key that may stand for all of it."""


class Watching:
    """May be used by several threads at once."""

    def __init__(self, desk: Desk, gate: Gate, cordons: Cordons, lookups: Lookups) -> None:
        self._desk = desk
        self._gate = gate
        self._cordons = cordons
        self._lookups = lookups
        self._lock = threading.Lock()
        self._state: StateMaker | None = None

    def watch(self, once: bool, context: grpc.ServicerContext) -> Iterator[pb.FleetState]:
        """Raises Refused."""
        caller = self._gate.admit_watcher(context)
        outbox: Outbox[pb.FleetState] = Outbox()

        def still(_: Caller) -> None:
            self._gate.admit_watcher(context)

        with self._gate.enter("watcher", caller), self._gate.opened(context, outbox, still):
            seen: tuple[int, ...] = ()
            while outbox.ended is None:
                state, asked = self._now(), self._asked(caller)
                if (state.changes, *asked) != seen:
                    seen = state.changes, *asked
                    yield state.message(caller, *asked)
                if once:
                    return
                outbox.wait_for_end(WATCH_SECONDS)
            if outbox.ended.code is not None:
                raise Refused(outbox.ended.code, outbox.ended.text)

    def state(self, sees: Callable[[str], bool]) -> pb.FleetState:
        """The fleet now. sees: whether what is done in a namespace is to be shown."""
        caller = Caller("page", lambda scope, name: scope == "read" and sees(name))
        return self._now().message(caller, *self._asked(caller))

    def _asked(self, caller: Caller) -> tuple[int, int]:
        """Results that were asked for, and found, since the server started, as far as it is the caller's business."""
        return self._lookups.seen(lambda namespace: caller.may("read", namespace))

    def _now(self) -> StateMaker:
        """One view for all who look within a moment."""
        with self._lock:
            known = self._state
            if known is None or known.changes != self._desk.changes:
                with self._desk.lock:
                    known = self._state = StateMaker(self._desk)
            return known

    def explain(self, request: pb.ExplainRequest, context: grpc.ServicerContext) -> pb.ExplainResponse:
        """Raises Refused."""
        namespace = checked_namespace(request.instance_name)
        self._gate.admit_look(context, namespace)
        beginning = request.action
        if not SHORTEST <= len(beginning) <= 64 or not set(beginning) <= set("0123456789abcdef"):
            raise invalid(f"an action is named by its key, or by the first {SHORTEST} or more digits of it")
        desk = self._desk
        with desk.lock:
            names = desk.scheduler.beginning_with(action_id(namespace, beginning))
            keys = {named_key(name) for name in names}
            if len(keys) > 1:
                raise invalid(f"{len(keys)} actions begin with {beginning}; say more digits")
            if not names:
                raise not_found(f"nothing was decided lately about an action {beginning} here")
            decisions = [each for name in names for each in desk.scheduler.explain(name)]
            decisions.sort(key=lambda each: each.at)
            since = time.time() - desk.now()
            response = pb.ExplainResponse(key=keys.pop(), text=desk.texts.get(names[-1], ""))
            for each in decisions:
                response.decisions.add(at=since + each.at, reason=each.why.name, text=each.text, worker=each.worker)
            return response

    def cordon(self, request: pb.CordonRequest, context: grpc.ServicerContext) -> pb.CordonResponse:
        """Raises Refused, StoreProblem."""
        caller = self._gate.admit_admin(context)
        desk, name = self._desk, request.worker
        with desk.lock:
            worker = desk.workers.get(name)
            if worker is None and name not in desk.cordoned:
                raise not_found(f"no worker {name[:63]} is here")
            self._cordons.note(name, off=request.off)
            if worker is not None:
                worker.cordoned = not request.off
                if not worker.draining:
                    event = WorkerResumes if request.off else WorkerDrains
                    desk.handle(event(desk.now(), name))
                    tell_builds(desk)
            desk.changes += 1
        self._cordons.keep()
        desk.say("worker uncordoned" if request.off else "worker cordoned", worker=name, who=caller.name)
        return pb.CordonResponse()
