"""Arrivals: what a build is told of the workers that are there: when it opens, and when the first one comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from worker.fleet.protocol import VERSION

if TYPE_CHECKING:
    from worker.fleet.desk import Desk
    from worker.fleet.parties import BuildParty


def opened_event(desk: Desk, namespace: str) -> pb.BuildEvent:
    """The desk's lock is held."""
    workers = desk.workers_for(namespace)
    platforms = sorted({platform for worker in workers for platform in worker.hello.platforms})
    slots = sum(worker.hello.slots for worker in workers)
    opened = pb.BuildOpened(version=VERSION, workers=len(workers), slots=slots, platforms=platforms)
    return pb.BuildEvent(opened=opened)


def tell_builds(desk: Desk) -> None:
    """A worker came, or takes actions again: builds that had none hear of it. The desk's lock is held."""
    lonely: dict[str, list[BuildParty]] = {}
    for build in desk.builds.values():
        if not build.has_workers:
            lonely.setdefault(build.namespace, []).append(build)
    for namespace, builds in lonely.items():
        event = opened_event(desk, namespace)
        for build in builds if event.opened.workers else ():
            build.has_workers = True
            build.tell(event)
