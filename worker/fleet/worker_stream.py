"""WorkerStream: one stream of `FleetWorkers/Work`, what comes in by it and what goes out."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import fleet_pb2 as pb

from cache.server.refusal import Refused, invalid
from worker.fleet.adopting import id_for_held
from worker.fleet.arrivals import tell_builds
from worker.fleet.commands import Refuse, Revoke
from worker.fleet.events import Held, Renewed, WorkerDrains, WorkerJoined, WorkerLayers, WorkerLeft
from worker.fleet.gate import end_by
from worker.fleet.identity import fingerprint, verify
from worker.fleet.incoming import check_said, checked_hello
from worker.fleet.limits import LEASE_SECONDS, MAX_TEXT, RENEW_SECONDS
from worker.fleet.mount_taking import take_mount
from worker.fleet.outbox import Outbox
from worker.fleet.parties import WorkerParty
from worker.fleet.protocol import VERSION
from worker.fleet.relay import from_worker
from worker.fleet.rights import WorkerLabels, changed, may_take
from worker.fleet.signed_texts import hello_text, lease_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.server.access import Caller
    from worker.fleet.cordons import Cordons
    from worker.fleet.desk import Desk
    from worker.fleet.gate import Gate
    from worker.fleet.incoming import Hello
    from worker.fleet.parties import LeaseParty
    from worker.fleet.settling import Settling


NONCE_BYTES = 32
"""Of a challenge: nobody ever gets the same one twice."""


class WorkerStream:
    """`run` answers; a thread of its own reads."""

    def __init__(
        self, desk: Desk, settling: Settling, gate: Gate, cordons: Cordons, context: grpc.ServicerContext
    ) -> None:
        self._desk = desk
        self._settling = settling
        self._gate = gate
        self._cordons = cordons
        self._context = context
        self._outbox: Outbox[pb.SchedulerMessage] = Outbox()
        self._ends_well = False

    def run(self, requests: Iterator[pb.WorkerMessage]) -> Iterator[pb.SchedulerMessage]:
        """Raises Refused."""
        caller = self._gate.admit_worker(self._context)
        def still(now: Caller) -> None:
            if changed(caller, now, self._namespaces()):
                raise Refused(grpc.StatusCode.ABORTED, "the rights of the worker's token have changed; join again")

        with self._gate.enter("worker", caller), self._gate.opened(self._context, self._outbox, still):
            nonce = secrets.token_bytes(NONCE_BYTES)
            yield pb.SchedulerMessage(challenge=pb.SchedulerMessage.Challenge(nonce=nonce))
            hello = _hello(next(requests, None), nonce)
            party = self._join(caller, hello)
            reader = threading.Thread(target=self._read, args=(party, requests), name="worker-reader", daemon=True)
            reader.start()
            try:
                self._cordons.keep()  # before the welcome, after which the worker does not say any more that it is
                while (message := self._outbox.take()) is not None:
                    yield message
            finally:
                self._leave(party)
            ended = self._outbox.ended
            if ended is not None and ended.code is not None:
                raise Refused(ended.code, ended.text)

    def _namespaces(self) -> set[str]:
        with self._desk.lock:
            return {action.namespace for action in self._desk.actions.values()}

    def _join(self, caller: Caller, hello: Hello) -> WorkerParty:
        desk = self._desk
        with desk.lock:
            desk.check_open()
            old = self._make_way(hello)
            party = WorkerParty(hello, caller, self._outbox, self._context, time.time())
            same = old is not None and old.hello.incarnation == hello.incarnation
            if old is not None and same:
                party.cordoned, party.joined, party.mounts = old.cordoned, old.joined, old.mounts
                party.draining = old.draining or hello.draining
            else:
                party.draining = hello.draining
                if hello.cordoned:
                    self._cordons.note(hello.name)
                party.cordoned = hello.cordoned or hello.name in desk.cordoned
            desk.workers[hello.name] = party
            held = self._held(party)
            for lease in [each for each in desk.leases.values() if each.worker == hello.name and each.id not in held]:
                desk.drop_lease(lease)
            event = WorkerJoined(
                desk.now(), hello.name, hello.name, hello.slots, hello.memory, hello.platforms,
                WorkerLabels(hello.labels, caller), hello.layers, hello.caches,
                tuple(Held(lease.id, lease.action.id, seconds) for lease, seconds in held.values()), hello.key,
                drains=party.cordoned or party.draining,
            )  # fmt: skip
            commands = desk.decide(event)
            # What the scheduler does not hold to be this worker's comes as Revoke, too, but welcome comes first.
            ended = {each.lease for each in commands if isinstance(each, Refuse | Revoke)}
            lost = [each.lease for each in hello.leases if each.lease not in held or each.lease in ended]
            welcome = pb.SchedulerMessage.Welcome(
                version=VERSION, lease_seconds=LEASE_SECONDS, renew_seconds=RENEW_SECONDS, lost=lost,
                shares_mounts=desk.mounts is not None,
            )  # fmt: skip
            self._outbox.put(pb.SchedulerMessage(welcome=welcome))
            desk.carry(commands)
            tell_builds(desk)
            desk.changes += 1
        desk.say(
            "worker joined", worker=hello.name, who=caller.name, slots=hello.slots, key=fingerprint(hello.key),
            version=hello.program, held=len(hello.leases), lost=len(lost),
        )  # fmt: skip
        return party

    def _make_way(self, hello: Hello) -> WorkerParty | None:
        """The worker that had the name, if it has the same key; its stream is ended. Raises Refused."""
        old = self._desk.workers.get(hello.name)
        if old is None:
            return None
        if old.hello.key != hello.key:
            known = f"another worker is called {hello.name}, with the key {fingerprint(old.hello.key)}"
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"{known}; choose another name with --name")
        old.outbox.end(grpc.StatusCode.ABORTED, "the worker joined again by another stream")
        return old

    def _held(self, party: WorkerParty) -> dict[str, tuple[LeaseParty, float]]:
        """Leases that the worker says it holds and may hold, and since when; those of an earlier start, which it proves
        to have been given, are new here."""
        desk = self._desk
        held: dict[str, tuple[LeaseParty, float]] = {}
        for name, namespace, key, seconds, proof in party.hello.leases:
            if not may_take(party.caller, namespace):
                continue
            lease = desk.leases.get(name)
            earlier = lease is None and not name.startswith(f"{desk.boot}.")
            if earlier and desk.proofs.holds(proof, name, namespace, key, party.hello.key):
                action = id_for_held(desk, namespace, key, party.hello)
                lease = desk.lease(name, desk.action(namespace, key, action), party.name)
                lease.earlier = True
                lease.serving = next(iter(lease.action.builds), None)
            said = (party.name, namespace, key)
            if lease is not None and (lease.worker, lease.action.namespace, lease.action.key) == said:
                held[name] = lease, seconds
                for execute in lease.action.builds.values():
                    party.had_mounts(namespace, execute.needs.caches)
        return held

    # what comes in

    def _read(self, party: WorkerParty, requests: Iterator[pb.WorkerMessage]) -> None:
        try:
            for request in requests:
                if self._outbox.ended is not None:
                    return
                self._take(party, request)
            self._ends_well = self._context.is_active()
            self._outbox.finish()
        except grpc.RpcError:
            self._outbox.end()  # it broke
        except Exception as error:  # noqa: BLE001, of a thread that nobody waits for
            end_by(self._outbox, self._context, error)

    def _take(self, party: WorkerParty, request: pb.WorkerMessage) -> None:
        check_said(request)
        desk, kind = self._desk, request.WhichOneof("message")
        if kind == "log":
            self._log(party, request.log)
            return
        if kind == "done":
            self._settling.done(party, request.done)
            return
        if kind == "mount":
            take_mount(desk, party, request.mount)
            return
        if kind == "started":
            self._started(party, request.started)
            return
        with desk.lock:
            if desk.workers.get(party.name) is not party:
                return
            if kind == "renewal":
                desk.handle(Renewed(desk.now(), party.name, tuple(request.renewal.leases)))
            elif kind == "sealed":
                from_worker(desk, party, request.sealed)
            elif kind == "given_back":
                back = request.given_back
                lease = desk.leases.get(back.lease)
                party.draining = party.draining or back.leaving
                if lease is not None and lease.worker == party.name:
                    self._give_back(lease, back.reason[:MAX_TEXT], leaving=back.leaving)
            elif kind == "held":
                held = request.held
                caches = frozenset(held.caches) or None
                event = WorkerLayers(desk.now(), party.name, frozenset(held.added), frozenset(held.removed), caches)
                desk.handle(event)
            elif kind == "drain":
                party.draining = True
                desk.changes += 1
                desk.say("worker drains", worker=party.name)
                desk.handle(WorkerDrains(desk.now(), party.name))

    def _give_back(self, lease: LeaseParty, why: str, *, leaving: bool = False) -> None:
        desk = self._desk
        text = " ".join(why.split()) or "it did not say why"
        desk.say("lease given back", worker=lease.worker, lease=lease.id, action=lease.action.key, text=text)
        desk.give_back(lease, text, leaving=leaving)

    def _started(self, party: WorkerParty, started: pb.WorkerMessage.LeaseStarted) -> None:
        desk = self._desk
        with desk.lock:
            lease = desk.leases.get(started.lease)
        if lease is None:
            return
        text = lease_text(lease.action.namespace, lease.action.key, started.lease, started.seal_key)
        signed = len(started.seal_key) == 32 and verify(party.hello.key, started.signature, text)
        with desk.lock:
            same = desk.leases.get(started.lease) is lease and desk.workers.get(party.name) is party
            if not same or lease.worker != party.name:
                return
            if not signed:
                self._give_back(lease, "the start of the lease is not signed by the worker's key")
                self._outbox.put(revoke(lease.id, "its start is not signed by the worker's key"))
                return
            if lease.started is None:
                # A part of a message keeps all of the message in memory.
                lease.started = pb.WorkerMessage.LeaseStarted(
                    lease=lease.id, seal_key=started.seal_key, signature=started.signature
                )
            if lease.begun_by is not party:
                # By another stream than before: what builds sealed may be lost with that one, and comes again.
                lease.begun_by, lease.given = party, False
                lease.broken.clear()
                desk.say_started(lease)

    def _log(self, party: WorkerParty, log: pb.WorkerMessage.LeaseLog) -> None:
        with self._desk.lock:
            lease = self._desk.leases.get(log.lease)
            if lease is None or lease.worker != party.name:
                return
        lease.log.add(log.offset, log.data)

    # the end

    def _leave(self, party: WorkerParty) -> None:
        desk = self._desk
        self._outbox.end()
        with desk.lock:
            if desk.workers.get(party.name) is not party:
                return
            party.left = desk.now()
            held = [lease for lease in desk.leases.values() if lease.worker == party.name]
            if self._ends_well and not held:
                del desk.workers[party.name]
            desk.handle(WorkerLeft(desk.now(), party.name))
            desk.changes += 1
        desk.say("worker left", worker=party.name, held=len(held), text="" if self._ends_well else "its stream broke")


def _hello(first: pb.WorkerMessage | None, nonce: bytes) -> Hello:
    """Raises Refused."""
    if first is None or not first.HasField("hello"):
        raise invalid("the first message of a worker is its hello")
    hello = checked_hello(first.hello)
    if not verify(hello.key, first.hello.signature, hello_text(nonce, hello.name, hello.incarnation)):
        raise _denied("the hello is not signed, for this stream's challenge, by the key that it shows")
    return hello


def revoke(lease: str, why: str) -> pb.SchedulerMessage:
    return pb.SchedulerMessage(revoke=pb.SchedulerMessage.Revoke(lease=lease, reason=why))


def _denied(text: str) -> Refused:
    return Refused(grpc.StatusCode.PERMISSION_DENIED, text)
