"""Carrying: does what the scheduler says, by putting messages into the streams' boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from worker.fleet.commands import GiveUp, Lease, Refuse, Revoke, Settle, Show, Tell
from worker.fleet.events import GaveBack
from worker.fleet.rights import may_take

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.fleet.commands import Command
    from worker.fleet.desk import Desk
    from worker.fleet.incoming import Execute
    from worker.fleet.parties import ActionParty, BuildParty, LeaseParty


class Carrying:
    """The desk's lock is held."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def carry(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Tell():
                    self._tell(command)
                case Lease():
                    self._give(command)
                case Show():
                    self._show(command)
                case Settle():
                    self._settle(command)
                case Revoke():
                    self._revoke(command)
                case Refuse():
                    self._refuse(command)
                case GiveUp():
                    self._give_up(command)

    # leases

    def _give(self, command: Lease) -> None:
        desk = self._desk
        action, worker = desk.actions.get(command.action), desk.workers.get(command.worker)
        text = "it has gone" if worker is None or worker.left is not None else ""
        if worker is not None and action is not None and not may_take(worker.caller, action.namespace):
            text = "its token may not execute in this namespace"
        if worker is None or action is None or not action.builds or text:
            desk.follow(GaveBack(desk.now(), command.worker, command.lease, text or "nobody says what it is"))
            return
        lease = desk.lease(command.lease, action, worker.name)
        serving, execute = self._serving(action)
        lease.serving = serving
        if action.shown is None:
            self._follow(action, lease)
        caches = execute.needs.caches
        worker.had_mounts(action.namespace, caches)
        mounts = [] if desk.mounts is None else desk.mounts.known(action.namespace, caches)
        worker.outbox.put(
            pb.SchedulerMessage(
                lease=pb.SchedulerMessage.Lease(
                    lease=lease.id,
                    instance_name=action.namespace,
                    action=execute.order,
                    text=execute.text,
                    mounts=mounts,
                    proof=desk.proofs.of(lease.id, action.namespace, action.key, worker.hello.key),
                )
            )
        )
        desk.say("lease given", worker=worker.name, action=action.key, namespace=action.namespace, lease=lease.id)

    def _serving(self, action: ActionParty) -> tuple[str, Execute]:
        """The first build in line that has secrets for it and is there, or is there, or else the first."""
        builds = self._desk.builds
        there = [(name, each) for name, each in action.builds.items() if builds[name].away_since is None]
        with_secrets = (each for each in there if each[1].has_secrets)
        return next(with_secrets, there[0] if there else next(iter(action.builds.items())))

    def _revoke(self, command: Revoke) -> None:
        desk = self._desk
        worker, lease = desk.workers.get(command.worker), desk.leases.get(command.lease)
        if worker is not None:
            revoke = pb.SchedulerMessage.Revoke(lease=command.lease, reason=command.why)
            worker.outbox.put(pb.SchedulerMessage(revoke=revoke))
        if lease is not None and lease.worker == command.worker:
            desk.drop_lease(lease)
        desk.say("lease revoked", worker=command.worker, lease=command.lease, text=command.why)

    # builds

    def _tell(self, command: Tell) -> None:
        desk = self._desk
        action, build = desk.actions.get(command.action), desk.builds.get(command.build)
        if action is None or build is None:
            return
        if command.state == "started":
            lease = next((each for each in action.leases.values() if each.worker == command.worker), None)
            if lease is not None:
                lease.reasons[build.id] = command.reason
                self.say_started(build, lease)
            return
        action.reason = command.reason
        if command.state == "again":
            if build.id == next(iter(action.builds), ""):
                desk.say("waits again", action=action.key, namespace=action.namespace, text=command.reason)
            action.shown = None
            build.outbox.drop(action.key)
        queued = pb.ActionQueued(key=action.key, reason=command.reason, again=command.state == "again")
        build.tell(pb.BuildEvent(queued=queued))

    def say_started(self, build: BuildParty, lease: LeaseParty) -> None:
        """Once the worker has begun, so that secrets can be sealed for it; and the log from its start."""
        action = lease.action
        if action.shown is None:
            action.shown = lease
        if build.id in action.builds:
            build.outbox.follow(action.key, action.shown.id, action.shown.log)
        started, worker = lease.started, self._desk.workers.get(lease.worker)
        if started is None and not lease.earlier:
            return
        reason = lease.reasons.get(build.id, "")
        message = pb.ActionStarted(key=action.key, lease=lease.id, worker=lease.worker, reason=reason)
        if started is not None and worker is not None:
            message.seal_key, message.signature = started.seal_key, started.signature
            message.worker_key = worker.hello.key
        build.tell(pb.BuildEvent(started=message))

    def _show(self, command: Show) -> None:
        action, lease = self._desk.actions.get(command.action), self._desk.leases.get(command.lease)
        if action is not None and lease is not None and lease.action is action:
            self._follow(action, lease)

    def _follow(self, action: ActionParty, lease: LeaseParty) -> None:
        """From now on this lease's log is the action's."""
        action.shown = lease
        for name in action.builds:
            build = self._desk.builds.get(name)
            if build is not None:
                build.outbox.follow(action.key, lease.id, lease.log)

    # ends

    def _settle(self, command: Settle) -> None:
        desk = self._desk
        action, lease = desk.actions.get(command.action), desk.leases.get(command.lease)
        if action is None:
            return
        if lease is None or lease.outcome is None:
            text = f"lease {command.lease} was settled without a result"
            desk.say("error", text=text)
            self._give_up(GiveUp(command.builds, command.action, text))
            return
        worker = desk.workers.get(command.worker)
        if worker is not None:
            settled = pb.SchedulerMessage.Settled(lease=lease.id, taken=True)
            worker.outbox.put(pb.SchedulerMessage(settled=settled))
        for other in action.leases.values():
            other.log.end()
        if lease.outcome.outcome.HasField("result"):
            desk.remember(action.id, lease.outcome)
        event = pb.BuildEvent(done=lease.outcome)
        for name in command.builds:
            build = desk.builds.get(name)
            if build is not None:
                build.settle(action.id, action.key, event)
        desk.drop_action(action)

    def _refuse(self, command: Refuse) -> None:
        desk = self._desk
        worker, lease = desk.workers.get(command.worker), desk.leases.get(command.lease)
        if lease is not None and lease.worker == command.worker:
            desk.drop_lease(lease)
        if worker is not None:
            settled = pb.SchedulerMessage.Settled(lease=command.lease, taken=False, reason=command.why)
            worker.outbox.put(pb.SchedulerMessage(settled=settled))
        desk.say("result refused", worker=command.worker, lease=command.lease, text=command.why)

    def _give_up(self, command: GiveUp) -> None:
        desk = self._desk
        action = desk.actions.get(command.action)
        if action is None:
            return
        event = pb.BuildEvent(declined=pb.ActionDeclined(key=action.key, reason=command.why))
        for name in command.builds:
            execute = action.builds.pop(name, None)
            if execute is not None:
                action.size -= execute.size
                desk.bodies -= execute.size
            build = desk.builds.get(name)
            if build is not None:
                build.settle(action.id, action.key, event)
        # One that was refused to one build only may go on for others.
        if not action.builds:
            desk.drop_action(action)
