"""Relay: sealed messages between a lease's worker and the one build that serves it. Nothing of them is kept or read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from worker.fleet.channels import AGENT, SECRETS
from worker.fleet.parties import MAX_BROKEN

if TYPE_CHECKING:
    from worker.fleet.desk import Desk
    from worker.fleet.parties import BuildParty, LeaseParty, WorkerParty


def from_build(desk: Desk, build: BuildParty, sealed: pb.Sealed) -> None:
    """To the worker. What comes from a build that does not serve the lease goes nowhere. The desk's lock is held."""
    lease = desk.leases.get(sealed.lease)
    if lease is None or lease.serving != build.id or sealed.channel in lease.broken:
        return
    worker = desk.workers.get(lease.worker)
    if worker is None:
        return
    if not worker.outbox.put_sealed(pb.SchedulerMessage(sealed=sealed), len(sealed.data)):
        _break(desk, lease, sealed.channel)
    elif sealed.channel == SECRETS and sealed.end:
        lease.given = True


def from_worker(desk: Desk, worker: WorkerParty, sealed: pb.Sealed) -> None:
    """To the build that serves the lease; if none does the worker hears that the channel is over, so that nothing there
    waits for an answer. The desk's lock is held."""
    lease = desk.leases.get(sealed.lease)
    if lease is None or lease.worker != worker.name or sealed.channel in lease.broken:
        return
    build = desk.builds.get(lease.serving or "")
    if build is None and sealed.end:
        return
    full = len(lease.broken) >= MAX_BROKEN
    if build is None or full or not build.outbox.put_sealed(pb.BuildEvent(sealed=sealed), len(sealed.data)):
        _break(desk, lease, sealed.channel)


def hang_up(desk: Desk, build: BuildParty) -> None:
    """What was on its way to the build is lost with its stream: workers end all connections to its agents. The desk's
    lock is held."""
    for lease in desk.leases.values():
        worker = desk.workers.get(lease.worker)
        if lease.serving == build.id and worker is not None:
            end = pb.Sealed(lease=lease.id, channel=AGENT, end=True)
            worker.outbox.put(pb.SchedulerMessage(sealed=end))


def _break(desk: Desk, lease: LeaseParty, channel: str) -> None:
    """One message was lost, so the channel is of no use any more: both ends hear that it is over."""
    if len(lease.broken) < MAX_BROKEN:
        lease.broken.add(channel)
    end = pb.Sealed(lease=lease.id, channel=channel, end=True)
    worker, build = desk.workers.get(lease.worker), desk.builds.get(lease.serving or "")
    if worker is not None:
        worker.outbox.put(pb.SchedulerMessage(sealed=end))
    if build is not None:
        build.outbox.put(pb.BuildEvent(sealed=end))
