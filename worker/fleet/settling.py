"""Settling: a worker says that it is done; what it says is checked and kept before anybody is told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from cache.server.refusal import refusal_of
from worker.fleet.events import Finished
from worker.fleet.identity import verify
from worker.fleet.incoming import check_outcome
from worker.fleet.signed_texts import outcome_text

if TYPE_CHECKING:
    from worker.fleet.desk import Desk
    from worker.fleet.parties import ActionParty, LeaseParty, WorkerParty
    from worker.fleet.results import Results

NOT_HELD = "the lease is not this worker's, or not any more"
STRIPES = 64
"""Locks for actions: of one action one result is kept after the other, so that the first that was taken is the one."""


class Settling:
    """May be used by several threads at once."""

    def __init__(self, desk: Desk, results: Results) -> None:
        self._desk = desk
        self._results = results
        self._stripes = [threading.Lock() for _ in range(STRIPES)]

    def done(self, worker: WorkerParty, done: pb.WorkerMessage.LeaseDone) -> None:
        """Take the outcome of a lease, or say why not. Never raises for what the worker did wrong."""
        with self._stripes[hash(done.key) % STRIPES]:
            lease = self._lease(worker, done)
            if lease is None:
                self._refuse(worker, done.lease, NOT_HELD)
                return
            namespace, key, outcome = done.instance_name, done.key, done.outcome
            try:
                check_outcome(outcome)
                text = self._check_signature(worker, namespace, key, outcome)
                kept = None if text else self._keep(worker, lease.action, outcome)
            except Exception as error:  # noqa: BLE001, the action goes on elsewhere whatever is wrong with this
                kept, text = None, refusal_of(error).text
            if kept is None:
                self._reject(worker, done.lease, text)
            else:
                self._settle(worker, done.lease, kept)

    def _keep(self, worker: WorkerParty, action: ActionParty, outcome: pb.Outcome) -> pb.ActionDone:
        with self._desk.lock:
            asked = tuple(action.builds.values())
        workers = asked[0].needs.workers if asked else ()
        anew = any(each.anew for each in asked)
        return self._results.keep(worker.caller, worker.name, action.namespace, action.key, outcome, workers, anew=anew)

    def _lease(self, worker: WorkerParty, done: pb.WorkerMessage.LeaseDone) -> LeaseParty | None:
        """The worker's lease of just this action."""
        with self._desk.lock:
            lease = self._desk.leases.get(done.lease)
            mine = lease is not None and lease.worker == worker.name
            if lease is None or not mine or self._desk.workers.get(worker.name) is not worker:
                return None
            action = lease.action
            return lease if (action.namespace, action.key) == (done.instance_name, done.key) else None

    def _check_signature(self, worker: WorkerParty, namespace: str, key: str, outcome: pb.Outcome) -> str:
        """What is wrong with it; "" for nothing."""
        if outcome.worker_key != worker.hello.key:
            return "the outcome shows another key than the worker's"
        signed = verify(worker.hello.key, outcome.signature, outcome_text(namespace, key, outcome))
        return "" if signed else "the outcome is not signed by the worker's key"

    def _settle(self, worker: WorkerParty, name: str, kept: pb.ActionDone) -> None:
        desk, result = self._desk, kept.outcome.result
        with desk.lock:
            lease = desk.leases.get(name)
            if lease is None:
                self._say_not_taken(worker, name, NOT_HELD)
                return
            lease.outcome = kept
            layers = (result.layer.diff_id,) if result.HasField("layer") else ()
            desk.handle(Finished(desk.now(), worker.name, name, kept.outcome.HasField("result"), layers))

    def _reject(self, worker: WorkerParty, name: str, text: str) -> None:
        """The worker lies or is broken: to the scheduler it gave the action back."""
        desk = self._desk
        with desk.lock:
            self._say_not_taken(worker, name, text)
            lease = desk.leases.get(name)
            if lease is not None:
                desk.give_back(lease, text)

    def _refuse(self, worker: WorkerParty, name: str, text: str) -> None:
        with self._desk.lock:
            self._say_not_taken(worker, name, text)

    def _say_not_taken(self, worker: WorkerParty, name: str, text: str) -> None:
        settled = pb.SchedulerMessage.Settled(lease=name, taken=False, reason=text)
        worker.outbox.put(pb.SchedulerMessage(settled=settled))
        self._desk.say("result refused", worker=worker.name, lease=name, text=text)
