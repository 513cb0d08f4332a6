"""BuildStream: one stream of `Fleet/Build`, what comes in by it and what goes out."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import fleet_pb2 as pb

from cache.server.refusal import Refused, invalid
from worker.cache_mounts import in_namespace
from worker.fleet.action_name import action_name
from worker.fleet.adopting import id_for_build
from worker.fleet.arrivals import opened_event
from worker.fleet.build_outbox import BuildOutbox
from worker.fleet.commands import Tell
from worker.fleet.decisions import Why
from worker.fleet.desk import action_id
from worker.fleet.events import BuildClosed, BuildOpened, Unwanted, Wanted
from worker.fleet.gate import check_build, end_by
from worker.fleet.incoming import check_sealed, checked_build, checked_execute, checked_key
from worker.fleet.limits import MAX_WANTED_PER_BUILD
from worker.fleet.parties import BuildParty
from worker.fleet.relay import from_build, hang_up
from worker.fleet.rights import ALLOWED, namespace_label
from worker.fleet.service_limits import MAX_BODIES, PAUSE_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.server.access import Caller
    from worker.fleet.desk import Desk
    from worker.fleet.gate import Gate
    from worker.fleet.incoming import Execute
    from worker.fleet.parties import ActionParty
    from worker.fleet.results import Results


class BuildStream:
    """A build may have one stream after another. `run` answers; a thread of its own reads."""

    def __init__(self, desk: Desk, results: Results, gate: Gate, context: grpc.ServicerContext) -> None:
        self._desk = desk
        self._results = results
        self._gate = gate
        self._context = context
        self._outbox = BuildOutbox()

    def run(self, requests: Iterator[pb.BuildRequest]) -> Iterator[pb.BuildEvent]:
        """Raises Refused."""
        name, namespace, project = _opening(next(requests, None))
        caller = self._gate.admit_build(self._context, namespace)
        still = functools.partial(check_build, namespace=namespace)
        with self._gate.enter("build", caller), self._gate.opened(self._context, self._outbox, still):
            party = self._open(caller, namespace, name, project)
            reader = threading.Thread(target=self._read, args=(party, requests), name="build-reader", daemon=True)
            reader.start()
            try:
                while (event := self._outbox.take()) is not None:
                    yield event
            finally:
                self._leave(party)
            ended = self._outbox.ended
            if ended is not None and ended.code is not None:
                raise Refused(ended.code, ended.text)

    def _open(self, caller: Caller, namespace: str, name: str, project: str) -> BuildParty:
        """The build is there, for the first time or again. Raises Refused."""
        desk = self._desk
        ident = f"{caller.name}\0{namespace}\0{name}"
        with desk.lock:
            desk.check_open()
            opened = opened_event(desk, namespace)
            self._outbox.put(opened)
            party = desk.builds.get(ident)
            if party is not None:
                party.outbox.end(grpc.StatusCode.ABORTED, "the build was opened again by another stream")
                party.outbox, party.context, party.caller = self._outbox, self._context, caller
                party.away_since, party.closing = None, False
                hang_up(desk, party)
            else:
                party = BuildParty(ident, caller, namespace, project, self._outbox, self._context, time.time())
                desk.builds[ident] = party
                desk.handle(BuildOpened(desk.now(), ident, caller.name))
            party.has_workers = bool(opened.opened.workers)
            desk.changes += 1
            return party

    # what comes in

    def _read(self, party: BuildParty, requests: Iterator[pb.BuildRequest]) -> None:
        try:
            for request in requests:
                self._outbox.wait_for_room(PAUSE_MESSAGES)
                if self._outbox.ended is not None:
                    return
                self._take(party, request)
            with self._desk.lock:
                if party.outbox is self._outbox and self._context.is_active():
                    party.closing = True
                    party.finish_if_done()
        except grpc.RpcError:
            self._outbox.end()  # it broke, or its client has gone
        except Exception as error:  # noqa: BLE001, of a thread that nobody waits for
            end_by(self._outbox, self._context, error)

    def _take(self, party: BuildParty, request: pb.BuildRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "execute":
            self._execute(party, checked_execute(request.execute))
        elif kind == "cancel":
            with self._desk.lock:
                key = checked_key(request.cancel)
                cancel(self._desk, party, party.names.get(key, action_id(party.namespace, key)))
        elif kind == "sealed":
            check_sealed(request.sealed)
            with self._desk.lock:
                from_build(self._desk, party, request.sealed)
        elif kind == "open":
            raise invalid("the build is open already")

    def _execute(self, party: BuildParty, execute: Execute) -> None:
        desk, key = self._desk, execute.order.key
        workers, only_for = execute.needs.workers, party.id if execute.anew else ""
        name = action_id(party.namespace, action_name(key, only_for, workers, execute.needs.labels))
        found = None
        # Without the lock: what has just come is seen below, and what has just gone, too.
        if name not in desk.actions and not execute.anew:
            found = self._results.find(party.namespace, key, workers)
        if desk.mounts is not None and found is None:
            desk.mounts.load(party.namespace, execute.needs.caches)
        with desk.lock:
            if party.outbox is not self._outbox:
                return  # another stream of this build has come
            name = id_for_build(desk, party, execute, name)
            found = found or desk.just_made(name)
            action = desk.actions.get(name)
            if key in party.failed:
                party.settle(name, key, party.failed[key])
            elif action is not None and party.id in action.builds:
                self._tell_again(party, action)
            elif found is not None:
                party.settle(name, key, pb.BuildEvent(done=found))
            else:
                self._want(party, name, execute)

    def _want(self, party: BuildParty, name: str, execute: Execute) -> None:
        desk, size = self._desk, execute.size
        is_full = len(party.wants) >= MAX_WANTED_PER_BUILD
        if is_full or desk.bodies + size > MAX_BODIES:
            reason = desk.scheduler.declined(desk.now(), name, Why.TOO_MANY_OF_BUILD if is_full else Why.TOO_MUCH)
            declined = pb.ActionDeclined(key=execute.order.key, reason=reason)
            party.settle(name, execute.order.key, pb.BuildEvent(declined=declined))
            return
        action = desk.action(party.namespace, execute.order.key, name)
        action.size += size
        desk.bodies += size
        action.builds[party.id] = party.wants[name] = execute
        party.names[execute.order.key] = name
        desk.name_action(action)
        labels = {**execute.needs.labels, namespace_label(party.namespace): ALLOWED}
        caches = tuple(in_namespace(party.namespace, cache) for cache in execute.needs.caches)
        needs = execute.needs._replace(labels=labels, caches=caches)
        for lease in action.leases.values():
            lease.serving = lease.serving or party.id
            if (worker := desk.workers.get(lease.worker)) is not None:
                worker.had_mounts(party.namespace, execute.needs.caches)
        desk.handle(Wanted(desk.now(), party.id, name, needs))
        for lease in [each for each in action.leases.values() if each.earlier and each.serving != party.id]:
            # Whose key the worker has was known only before the restart: nobody may be asked for the other's agent.
            if execute.order.agents:
                desk.unserve(lease)

    def _tell_again(self, party: BuildParty, action: ActionParty) -> None:
        """To a build that came back."""
        leases = tuple(action.leases.values())
        running = action.shown
        for lease in leases if running is not None else ():
            worker = lease.worker
            reason = lease.reasons.get(party.id, "")
            self._desk.carry([Tell(party.id, action.id, "started", worker, reason)])
        if running is None:
            self._desk.carry([Tell(party.id, action.id, "queued", "", action.reason)])

    # the end

    def _leave(self, party: BuildParty) -> None:
        desk = self._desk
        self._outbox.end()
        self._outbox.close()
        with desk.lock:
            if desk.builds.get(party.id) is not party or party.outbox is not self._outbox:
                return
            # A stream that breaks may look for a moment as if its client had said all.
            if party.closing and not party.wants:
                close(desk, party)
            else:
                party.away_since = desk.now()
                desk.changes += 1


def _opening(first: pb.BuildRequest | None) -> tuple[str, str, str]:
    """(build, namespace, project). Raises Refused."""
    if first is None or not first.HasField("open"):
        raise invalid("the first message of a build opens it")
    return checked_build(first.open)


def cancel(desk: Desk, party: BuildParty, name: str) -> None:
    """The build does not want an action any more. The desk's lock is held."""
    action = _let_go(desk, party, name)
    desk.handle(Unwanted(desk.now(), party.id, name))
    _go_on(desk, action)
    party.finish_if_done()


def close(desk: Desk, party: BuildParty) -> None:
    """The build is over. The desk's lock is held."""
    actions = [_let_go(desk, party, name) for name in tuple(party.wants)]
    desk.builds.pop(party.id, None)
    desk.handle(BuildClosed(desk.now(), party.id))
    for action in actions:
        _go_on(desk, action)
    desk.changes += 1


def _let_go(desk: Desk, party: BuildParty, name: str) -> ActionParty | None:
    """The build has nothing to do with the action any more, which the scheduler still has to hear. None if there is no
    such action."""
    execute = party.wants.pop(name, None)
    if execute is not None:
        party.names.pop(execute.order.key, None)
    action = desk.actions.get(name)
    execute = action.builds.pop(party.id, None) if action is not None else None
    if action is None or execute is None:
        return None
    party.outbox.drop(action.key)
    action.size -= execute.size
    desk.bodies -= execute.size
    for lease in action.leases.values():
        if lease.serving == party.id:
            # What was sealed is sealed by this build's key, so that no other can send the rest. Once all secrets were
            # sent on, by a stream that is still there, and without an agent, there is no rest.
            worker = desk.workers.get(lease.worker)
            given = lease.given and worker is not None and worker.left is None and lease.begun_by is worker
            lease.serving = None
            lease.unserved = execute.has_secrets and (bool(execute.order.agents) or not given)
    return action


def _go_on(desk: Desk, action: ActionParty | None) -> None:
    """Without a build that has let go, as the scheduler knows by now."""
    if action is None:
        return
    if not action.builds:
        desk.drop_action(action)
        return
    for lease in [each for each in action.leases.values() if each.unserved]:
        desk.unserve(lease)
