"""PlacedExecutor: has RUNs made by the workers of a fleet, and everything else by this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from buildgraph.v1 import fleet_pb2

from cache.errors import BuildgraphError, CorruptBlob, RemoteError
from cache.promises import Origin
from compiler.fleet.fleet_log import KEPT, FleetLog
from compiler.fleet.kept import keep_earlier, keep_log, keep_promise
from compiler.fleet.lease_line import LeaseLine
from compiler.fleet.link import Lost, Reopened
from compiler.fleet.needs_of import check_given, needs_of, stays_here
from compiler.fleet.outcome import failure_in, log_promise, promise_in
from compiler.fleet.trust import Distrusted, Trust
from compiler.remote_cache import LayerGone
from worker.action import Cancelled, CommandFailed
from worker.fleet.action_body import MAX_BODY, encode_body
from worker.fleet.limits import NOBODY_SECONDS
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cache.promises import Promise
    from cache.result import Result
    from compiler.fleet.here import Here
    from compiler.fleet.inputs import Inputs
    from compiler.fleet.link import Link, Watch
    from compiler.remote_cache import RemoteCache
    from worker.action import Action, Order
    from worker.fleet.action_body import Body

POLL_SECONDS = 0.1
"""How often a thread that waits for the fleet looks whether anybody still wants the result."""
TAKE_OVER_SECONDS = 0.5
"""How long an action waits in the fleet's queue, or for a scheduler that does not answer, before a free slot of this
machine takes it."""
BACK_SECONDS = NOBODY_SECONDS
"""The same for one that a worker had before the stream broke: a scheduler that starts anew learns of it from the
worker, and as long it waits for workers to be back."""


def _ignore(_: str) -> None:
    return


class Wish(NamedTuple):
    """What the scheduler, and the user, are told beside the action. text, node: for people. seconds: expected.
    critical: to the end of the build. memory, labels: what a worker must have. anew: a result that is there already
    does not do. marks: of secrets in the action's key. on: is told the worker that begins it; here: why this machine
    does; waits: why nobody does yet."""

    text: str = "RUN"
    node: str = ""
    seconds: float | None = None
    critical: float = 0.0
    memory: int = 0
    labels: Mapping[str, str] = {}
    anew: bool = False
    marks: tuple[tuple[str, str], ...] = ()
    on: Callable[[str], None] = _ignore
    here: Callable[[str], None] = _ignore
    waits: Callable[[str], None] = _ignore


class Placed(NamedTuple):
    """A result and where it was made, for people. promise: what the server has of it, None for one of the own store.
    worker: that made it for this build, "" for this machine and for what was there already."""

    result: Result
    where: str = ""
    promise: Promise | None = None
    worker: str = ""


class _Declined(Exception):
    """The fleet does not make it; the text says why."""


class PlacedExecutor:
    """Threads may call `execute` at the same time. remote: the server that the scheduler is a part of."""

    def __init__(self, here: Here, link: Link, inputs: Inputs, remote: RemoteCache, trust: Trust) -> None:
        self._here = here
        self._link = link
        self._inputs = inputs
        self._remote = remote
        self._trust = trust
        namespace = remote.settings.write
        assert namespace is not None
        self._origin = Origin(remote.settings.origin, namespace, "blake3")

    def execute(self, action: Action, order: Order) -> Result:
        """As `Executor.execute`."""
        return self.place(action, order, Wish()).result

    def place(self, action: Action, order: Order, wish: Wish) -> Placed:
        """The same, and where. Raises what `Executor.execute` does, and RemoteError for what no worker makes and this
        machine may not."""
        if not isinstance(action.operation, Run):
            return Placed(self._here.execute(action, order))
        check_given(action.operation, order)
        if not self._link.had_workers:
            return Placed(self._here.execute(action, order))
        why = stays_here(action.operation, self._remote.store.directory, self._here.local_slots)
        if not why:
            try:
                return self._place_there(action, order, wish)
            except _Declined as declined:
                why = str(declined)
        if self._here.local_slots != 0:
            wish.here(why)
        return Placed(self._here.execute(action, order, why), f"here: {why}")

    def stop(self) -> None:
        """Kill what runs here. Those who wait for the fleet learn from `Order.cancelled` that nobody wants it."""
        self._here.stop()

    def close(self) -> None:
        self._link.close()
        self._here.close()

    # there

    def _place_there(self, action: Action, order: Order, wish: Wish) -> Placed:
        if self._link.lost:
            raise _Declined("the scheduler is out of reach")
        try:
            body = self._inputs.prepare(action, order.cancelled)._replace(marks=wish.marks)
            request = self._request(body, order, wish)
        except LayerGone:
            raise
        except RemoteError as error:
            raise _Declined(f"its inputs could not be given to the fleet ({error.message})") from None
        with_log = FleetLog(self._remote.store.scratch("log"), order.show)
        order.live(with_log.live_path)
        turn = _Turn(self._link.want(request), order, wish, with_log)
        done = False
        try:
            outcome = self._follow(turn)
            if outcome is None:
                self._link.forget(turn.watch, cancel=True)
                done = True
                wish.here("the fleet is busy")
                return Placed(self._here.execute_taken(action, order), "here: the fleet was busy")
            done = True
            return self._take(outcome, action, turn)
        finally:
            turn.close()
            self._link.forget(turn.watch, cancel=not done)

    def _request(self, body: Body, order: Order, wish: Wish) -> fleet_pb2.ExecuteAction:
        action = body.action
        wanted = {kind: {mount.id for mount in body.run.mounts if mount.type == kind} for kind in ("secret", "ssh")}
        request = fleet_pb2.ExecuteAction(
            action=fleet_pb2.ActionOrder(
                key=action.key, body=encode_body(body), retry=order.retry, timeout=order.timeout or 0.0,
                sealed_proxies=bool(order.proxies), secrets=sorted(wanted["secret"] & order.secrets.keys()),
                agents=sorted(wanted["ssh"] & order.agents.keys()),
            ),
            needs=needs_of(action, wish, self._trust.keys), text=order.shown(wish.text), node=wish.node,
            anew=wish.anew,
        )  # fmt: skip
        if len(request.action.body) > MAX_BODY:
            raise _Declined("it says too much for one message")
        return request

    def _follow(self, turn: _Turn) -> fleet_pb2.ActionDone | None:
        """Until there is an outcome; None if a free slot of this machine was taken. Raises _Declined, Cancelled."""
        for event in turn.events():
            if event is None:
                if self._here.local_slots and self._waits_long(turn) and self._here.take_slot():
                    return None
            elif isinstance(event, Lost):
                raise _Declined("the scheduler is out of reach")
            elif isinstance(event, Reopened):
                turn.reopened()
            elif event.HasField("queued"):
                turn.queued(event.queued)
            elif event.HasField("started"):
                self._started(turn, event.started)
            elif event.HasField("log"):
                turn.logged(event.log)
            elif event.HasField("sealed"):
                turn.sealed(event.sealed)
            elif event.HasField("declined"):
                raise _Declined(event.declined.reason or "no worker can make it")
            elif event.HasField("done"):
                return event.done
        raise Cancelled

    def _waits_long(self, turn: _Turn) -> bool:
        """Whether a free slot of this machine would do better."""
        if turn.idle < (BACK_SECONDS if turn.is_begun else TAKE_OVER_SECONDS):
            return False
        # Nothing is said of an action while a worker fetches what it needs; so it is asked who is silent.
        return turn.is_queued or not (turn.is_begun or self._link.answers)

    def _started(self, turn: _Turn, started: fleet_pb2.ActionStarted) -> None:
        try:
            if started.seal_key:  # else the lease is from before a restart, and its outcome tells who has it
                self._trust.check_lease(started, turn.watch.request.action.key)
            turn.started(started, self._origin.namespace, self._link)
        except (Distrusted, CorruptBlob) as error:
            raise self._distrust(str(error)) from None

    def _distrust(self, reason: str) -> _Declined:
        self._remote.tell("distrusted", f"{reason}; what it made is not used, and made on this machine")
        return _Declined(reason)

    def _take(self, done: fleet_pb2.ActionDone, action: Action, turn: _Turn) -> Placed:
        """What the outcome is for this build. Raises the command's failure, _Declined for what is not believed."""
        outcome = done.outcome
        try:
            self._trust.check_outcome(done)
            if not outcome.HasField("result"):
                raise self._failed(failure_in(outcome.failure), turn)
            promise = promise_in(outcome.result.SerializeToString(), self._origin)
        except Distrusted as error:
            raise self._distrust(str(error)) from None
        result = promise.result
        worker = done.worker if outcome.signature else ""
        where = f"on {worker}" if worker else f"made by {result.made_by}"
        whole = self._log(promise, turn) if result.log is not None else None
        kept = keep_earlier(self._remote, action, promise, whole)
        if kept is not None:
            return Placed(kept, where, worker=worker)
        if not keep_promise(self._remote, action.key, promise):
            raise _Declined("its layer was refused before")
        if result.log is not None and whole is not None:
            keep_log(self._remote, result.log, whole)
        return Placed(result, where, promise, worker)

    def _log(self, promise: Promise, turn: _Turn) -> bytes | None:
        """All that a command printed, which is shown if it was not; None for a long log, of which a part is enough."""
        log = promise.result.log
        assert log is not None
        whole = turn.log.whole(log)
        if whole is None and log.size <= KEPT:
            whole = self._remote.read_log(promise)
            if whole is not None:
                turn.log.complete(whole)
        return whole

    def _failed(self, error: BuildgraphError, turn: _Turn) -> BuildgraphError:
        """The failure, with its log in the store."""
        if isinstance(error, CommandFailed) and error.log is not None:
            promise = log_promise(error.log, self._origin)
            data = self._log(promise, turn) or self._remote.read_log(promise)
            if data is None:
                error.log = None
            else:
                keep_log(self._remote, error.log, data)
        return error


class _Turn:
    """One action on its way through the fleet. is_queued: the scheduler said last that it waits. is_begun: a worker has
    it, or had it when that was heard last. idle: seconds since anything was heard."""

    def __init__(self, watch: Watch, order: Order, wish: Wish, log: FleetLog) -> None:
        self.watch = watch
        self.wish = wish
        self.log = log
        self._order = order
        self._lines: dict[str, LeaseLine | None] = {}
        self.idle = 0.0
        self.is_queued = False
        self.is_begun = False
        self._logged = ""
        """Whose log came last, "" before there was one."""

    def events(self) -> Iterator[fleet_pb2.BuildEvent | Reopened | Lost | None]:
        """As they come, None now and then; ends once nobody wants the result."""
        while not self._order.cancelled():
            event = self.watch.next(POLL_SECONDS)
            self.idle = self.idle + POLL_SECONDS if event is None else 0.0
            yield event

    def reopened(self) -> None:
        """All that is still so is told again; what was on its way is lost, so that no connection goes on."""
        self._end_lines()
        self.log.replay()

    def queued(self, queued: fleet_pb2.ActionQueued) -> None:
        self.is_queued = True
        if queued.again:
            self.is_begun, self._logged = False, ""
            self._end_lines()
            self.log.restart()
        self.wish.waits(queued.reason or "for a worker")

    def logged(self, log: fleet_pb2.ActionLog) -> None:
        if log.lease != self._logged and self._logged:
            self.log.restart()
        self._logged = log.lease
        self.log.add(log.data)

    def started(self, started: fleet_pb2.ActionStarted, namespace: str, link: Link) -> None:
        """A worker has it. The same lease may be told again, and a late action may get a second one."""
        if self.is_queued or started.lease not in self._lines:
            self.wish.on(started.worker)
        self.is_queued, self.is_begun = False, True
        line = self._lines.get(started.lease)
        if line is not None:
            line.begin_again()
            return
        asked = self.watch.request.action
        if started.seal_key and (asked.secrets or asked.agents or asked.sealed_proxies):
            agents = {name: self._order.agents[name] for name in asked.agents}
            line = LeaseLine(started, namespace, agents, link)
            line.give({name: self._order.secrets[name] for name in asked.secrets}, self._order.proxies)
        self._lines[started.lease] = line

    def sealed(self, sealed: fleet_pb2.Sealed) -> None:
        line = self._lines.get(sealed.lease)
        if line is not None:
            line.take(sealed)

    def _end_lines(self) -> None:
        for line in self._lines.values():
            if line is not None:
                line.close()

    def close(self) -> None:
        self._end_lines()
        self.log.close()
