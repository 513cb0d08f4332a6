"""FleetState: the fleet as a message for people, with what each of them may see of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from worker.fleet.action_name import named_key
from worker.fleet.rights import may_look
from worker.fleet.service_limits import SHOWN_BUILDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.server.access import Caller
    from worker.fleet.desk import Desk
    from worker.fleet.fleet_view import ActionView, BuildView, FleetView, WorkerView
    from worker.fleet.parties import WorkerParty


class StateMaker:
    """Makes messages of one view of the fleet. What it needs of the desk it takes when it is made, under its lock."""

    def __init__(self, desk: Desk) -> None:
        self.changes = desk.changes
        self._at = time.time()
        self._since = self._at - desk.now()
        """What to add to the scheduler's clock for seconds since the epoch."""
        self._view: FleetView = desk.scheduler.snapshot()
        self._workers: dict[str, WorkerParty] = dict(desk.workers)
        self._texts = {action.id: action.text or desk.texts.get(action.id, "") for action in desk.actions.values()}
        self._projects = {build.id: build.project for build in desk.builds.values()}

    def message(self, caller: Caller, lookups: int, hits: int) -> pb.FleetState:
        """Everybody sees all workers, and how much there is to do; what it is only those who may look there. lookups:
        results that were asked for where the caller may read; hits: how many of them were there."""
        view, now = self._view, time.time()
        passed = now - self._at
        builds = [each for each in view.builds if may_look(caller, _namespace_of(each.build))]
        return pb.FleetState(
            at=now,
            workers=self._worker_states(),
            running=self._actions(caller, view.running, passed),
            queued=self._actions(caller, view.queued, passed),
            queue_length=view.queue_length,
            builds=[self._build(each) for each in builds[:SHOWN_BUILDS]],
            lookups=lookups,
            hits=hits,
        )

    def _worker_states(self) -> list[pb.WorkerState]:
        views = {view.worker: view for view in self._view.workers}
        return [self._worker(party, views.get(name)) for name, party in sorted(self._workers.items())]

    def _worker(self, party: WorkerParty, view: WorkerView | None) -> pb.WorkerState:
        hello = party.hello
        state = pb.WorkerState(
            name=party.name, version=hello.program, slots=hello.slots, memory=hello.memory,
            platforms=sorted(hello.platforms), labels=hello.labels, state=_state(party, view), since=party.joined,
            key=hello.key, features=sorted(hello.features),
        )  # fmt: skip
        if view is not None:
            state.busy, state.done, state.failed, state.warm = view.busy, view.done, view.failed, view.warm
        return state

    def _actions(self, caller: Caller, views: Iterable[ActionView], passed: float) -> list[pb.ActionState]:
        """passed: seconds since the view was taken."""
        return [
            pb.ActionState(
                key=named_key(view.action), text=self._texts.get(view.action, ""), worker=view.worker,
                seconds=view.seconds + passed, expected=view.expected or 0.0, reason=view.reason,
                builds=[build.rpartition("\0")[2] for build in view.builds],
            )
            for view in views
            if may_look(caller, view.action.partition("\0")[0])
        ]  # fmt: skip

    def _build(self, view: BuildView) -> pb.BuildState:
        return pb.BuildState(
            build=view.build.rpartition("\0")[2], person=view.person, project=self._projects.get(view.build, ""),
            running=view.running, queued=view.queued, done=view.done, since=self._since + view.since,
        )  # fmt: skip


def _state(party: WorkerParty, view: WorkerView | None) -> str:
    if party.left is not None or (view is not None and view.state in ("lost", "silent")):
        return "lost"
    if party.draining:
        return "draining"
    return "cordoned" if party.cordoned else "ready"


def _namespace_of(build: str) -> str:
    """Of a build's id."""
    return build.split("\0")[1]
