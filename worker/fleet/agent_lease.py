"""AgentLease: one lease of a worker, from the order to the outcome."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import BuildgraphError, DefinitionError, EnvironmentProblem
from cache.remote.trouble import Unreachable
from cache.store import Batch
from worker.action import Cancelled, CommandFailed, Order
from worker.cache_mounts import mount_key
from worker.fleet.action_body import decode_body
from worker.fleet.agent_line import Given, WorkerLine
from worker.fleet.agent_log import FLUSH_SECONDS, LogFeed
from worker.fleet.foreign import isolated, without_secrets
from worker.fleet.signed_texts import lease_text
from worker.operation import Run
from worker.proxies import checked_proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cache.digest import Digest
    from cache.lmdb_store import LmdbStore
    from cache.result import Result
    from worker.action import Action
    from worker.execute import Executor
    from worker.fleet.agent_outgoing import Outgoing
    from worker.fleet.hot_layers import HotLayers
    from worker.fleet.identity import Identity
    from worker.fleet.inputs import Inputs
    from worker.fleet.mount_filler import MountFiller
    from worker.fleet.mount_publisher import MountPublisher
    from worker.fleet.publishing import Publishing
    from worker.keeper_client import Keeper

SECRETS_SECONDS = 20.0
"""How long the build may take to send its secrets."""
KEEP_SECONDS = 600.0
"""How long a lease goes on, or its outcome is kept, while the scheduler is out of reach."""
TRIES = 3
PAUSE = 1.0
"""Seconds between two tries to move blobs, each of which has tries of its own; as long as the scheduler is out of reach
it does not count as one."""

ROOM_SECONDS = 20.0
"""How long a connection to an ssh agent waits for a stream that takes more of it, before it is ended."""

_Got = TypeVar("_Got")


class Tools(NamedTuple):
    """What leases are carried out with."""

    store: LmdbStore
    executor: Executor
    inputs: Inputs
    publishing: Publishing
    hot: HotLayers
    identity: Identity
    keeper: Keeper
    mounts: MountPublisher
    filler: MountFiller


class Home(Protocol):
    """What a lease knows of the agent. All methods may be called from any thread."""

    def outgoing(self) -> Outgoing | None:
        """Of the stream, None if there is none now."""
        ...

    def wait_for_stream(self, seconds: float) -> bool:
        """Whether there is one, at the latest after so long."""
        ...

    def over(self, lease: AgentLease, text: str) -> None:
        """The lease needs nothing more, and is not held any more. text: for people."""
        ...

    def broken(self, problem: BuildgraphError) -> None:
        """This worker is of no use any more."""
        ...

    def ended(self, lease: AgentLease, text: str) -> None:
        """The lease has an outcome, which waits to be taken. text: for people."""
        ...

    def used_caches(self, names: Collection[str]) -> None:
        """The worker has these cache mounts from now on."""
        ...


class AgentLease:
    """`run` works, in a thread of its own; the other methods may be called from any. began: as time.monotonic. feed:
    its log. done_at: when there was an outcome."""

    def __init__(self, order: pb.SchedulerMessage.Lease, tools: Tools, home: Home) -> None:
        self.id = order.lease
        self.namespace = order.instance_name
        self.key = order.action.key
        self.text = order.text or f"action {order.action.key[:12]}"
        self.began = time.monotonic()
        self.done_at: float | None = None
        self.feed = LogFeed(order.lease)
        self._order = order.action
        self._proof = order.proof
        self._mounts = tuple(order.mounts)
        self._tools = tools
        self._home = home
        self._lock = threading.Lock()
        self._reason = ""
        """Why it was cancelled."""
        self._gives_back = False
        self._leaving = False
        self._kill: Callable[[], None] | None = None
        self._line = WorkerLine(order.lease, (self.namespace, self.key), self._send_sealed, self._room)
        self._started: pb.WorkerMessage | None = None
        self._done: pb.WorkerMessage | None = None
        self._sent: dict[str, Outgoing] = {}
        self._log: Digest | None = None
        self._shown: Callable[[str], str] = str
        """Takes the step's secrets out of a text, as soon as it has some."""
        self._agents = tools.store.scratch("agents")

    # what others want

    @property
    def is_done(self) -> bool:
        return self._done is not None

    def cancelled(self) -> bool:
        return bool(self._reason)

    def _check(self) -> None:
        if self.cancelled():
            raise Cancelled

    def cancel(self, reason: str, *, give_back: bool = False, leaving: bool = False) -> None:
        """Nobody wants it any more, or not from here. give_back: the scheduler does not know yet. leaving: the worker
        ends, which is the only reason."""
        with self._lock:
            self._gives_back = self._gives_back or (give_back and not self._reason)
            self._leaving = self._leaving or (leaving and not self._reason)
            self._reason = self._reason or reason
            kill = self._kill
        if kill is not None:
            with contextlib.suppress(BuildgraphError):  # then nothing runs any more
                kill()

    def held(self) -> pb.WorkerMessage.HeldLease:
        """For whoever has lost track of it."""
        return pb.WorkerMessage.HeldLease(
            lease=self.id, instance_name=self.namespace, key=self.key, seconds=time.monotonic() - self.began,
            proof=self._proof,
        )  # fmt: skip

    def take(self, sealed: pb.Sealed) -> None:
        """What the build sealed for it."""
        self._line.take(sealed)

    def hang_up(self) -> None:
        """The stream broke: what was sealed and on its way is lost."""
        self._line.hang_up()

    def deliver(self, outgoing: Outgoing | None) -> None:
        """What there is to say of it, once by each stream."""
        if outgoing is None:
            return
        with self._lock:
            for name, message in (("started", self._started), ("done", self._done)):
                if message is not None and self._sent.get(name) is not outgoing and outgoing.put(message):
                    self._sent[name] = outgoing

    # work

    def run(self, slots: threading.Semaphore) -> None:
        """Never raises."""
        while not slots.acquire(timeout=LOOK_SECONDS):
            if self.cancelled():
                self._give_back("it has no free slot")
                return
        held: list[str] = []
        try:
            self._work(held)
        except Cancelled:
            self._give_back(self._reason)
        except (BuildgraphError, OSError) as error:
            self._check_store(error)
            self._give_back(getattr(error, "message", "") or str(error))
        except Exception as error:  # noqa: BLE001, of a thread that nobody waits for
            self._give_back(f"an error of the worker itself: {type(error).__name__}: {error}")
        finally:
            slots.release()
            self._line.close()
            self.feed.close()
            self._discard_files()
            self._tools.hot.let_go(held)

    def _work(self, held: list[str]) -> None:
        tools = self._tools
        body = decode_body(self.key, self._order.body)
        said = body.placed()
        action = isolated(said, self.namespace)
        held += {layer.diff_id for given in said.inputs if isinstance(given, tuple) for layer in given}
        tools.hot.hold(held)
        prepared = self._insist(lambda: tools.inputs.prepare(self.namespace, action, self.cancelled))
        tools.inputs.check_key(body, prepared)
        # Only now: what is signed tells the build that this key's command, and no other one, gets what it seals.
        self._say_started()
        if isinstance(action.operation, Run):
            self._home.used_caches({mount_key(each) for each in action.operation.mounts if each.type == "cache"})
        order = self._execution(action, self._given())
        try:
            result = tools.executor.execute(prepared, order)
        except CommandFailed as failed:
            if failed.disk_full:
                raise EnvironmentProblem(f"its disk is full ({failed.message})") from None
            self._log, error = failed.log, failed
            self._flush()
            outcome = self._insist(
                lambda: tools.publishing.failure(self.namespace, self.key, error, self._shown, self._check)
            )
            self._finish(outcome, f"failed: {failed.message}")
        except DefinitionError as wrong:
            outcome = tools.publishing.definition(self.namespace, self.key, wrong, self._shown)
            self._finish(outcome, f"failed: {wrong.message}")
        else:
            tools.mounts.used(self.namespace, said, action, self._mounts, order.shown)
            self._publish(result, held)

    def _publish(self, result: Result, held: list[str]) -> None:
        tools, layer = self._tools, result.layer
        self._log = result.log
        if layer is not None:
            tools.hot.hold([layer.diff_id])
            held.append(layer.diff_id)
            tools.hot.add([layer])
        self._flush()
        outcome = self._insist(lambda: tools.publishing.result(self.namespace, self.key, result, self._check))
        if layer is not None:
            tools.inputs.made(self.namespace, layer)
        self._finish(outcome, "done")

    def _insist(self, call: Callable[[], _Got]) -> _Got:
        """What moves blobs. Raises Cancelled, and what it raises, if that is not for lack of a connection."""
        until = time.monotonic() + KEEP_SECONDS
        tries = 0
        while True:
            try:
                return call()
            except Unreachable:
                if self.cancelled():
                    raise Cancelled from None
                there = self._home.outgoing() is not None
                tries += there
                if tries >= TRIES or time.monotonic() > until:
                    raise
                if there:
                    time.sleep(PAUSE)
                while not self._home.wait_for_stream(PAUSE) and time.monotonic() < until and not self.cancelled():
                    pass

    def _say_started(self) -> None:
        key = self._line.seal_key
        signature = self._tools.identity.sign(lease_text(self.namespace, self.key, self.id, key))
        started = pb.WorkerMessage.LeaseStarted(lease=self.id, seal_key=key, signature=signature)
        with self._lock:
            self._started = pb.WorkerMessage(started=started)
        self.deliver(self._home.outgoing())

    def _given(self) -> Given:
        order = self._order
        if not (order.secrets or order.agents or order.sealed_proxies):
            return Given({}, checked_proxies(order.proxies))
        found = self._line.given(SECRETS_SECONDS, self.cancelled)
        if self.cancelled():
            raise Cancelled
        if found is None:
            raise EnvironmentProblem(f"the build did not send its secrets within {SECRETS_SECONDS:.0f} s")
        return found  # whole: what the order says of secrets, agents and proxies may be the server's word alone

    def _execution(self, action: Action, given: Given) -> Order:
        order, secrets = self._order, given.secrets
        self._shown = without_secrets(secrets)
        mounts = action.operation.mounts if isinstance(action.operation, Run) else ()
        agents = dict.fromkeys(each.id for each in mounts if each.type == "ssh" and each.id in given.agents)
        return Order(
            secrets=secrets,
            agents=self._line.agents(agents, self._agents),
            proxies=given.proxies,
            show=lambda _: None,
            cancelled=self.cancelled,
            retry=order.retry,
            timeout=order.timeout or None,
            live=self.feed.follow,
            shown=self._shown,
            begun=self._begun,
            warm=self._tools.filler.warmer(self.namespace, self._mounts, self.cancelled, self._shown),
            within=f"namespace {self.namespace}",
        )

    def _begun(self, kill: Callable[[], None]) -> None:
        with self._lock:
            self._kill = kill

    # ends

    def _flush(self) -> None:
        outgoing = self._home.outgoing()
        if outgoing is not None:
            self.feed.send(outgoing, FLUSH_SECONDS)

    def _finish(self, outcome: pb.Outcome, text: str) -> None:
        if self.cancelled():
            raise Cancelled
        done = pb.WorkerMessage.LeaseDone(
            lease=self.id, instance_name=self.namespace, key=self.key, outcome=outcome
        )  # fmt: skip
        with self._lock:
            self._done = pb.WorkerMessage(done=done)
            self.done_at = time.monotonic()
        self.deliver(self._home.outgoing())
        self._home.ended(self, self._shown(text))

    def _give_back(self, reason: str) -> None:
        """Not to be executed here; whoever revoked it knows that."""
        reason = self._shown(reason)
        outgoing = self._home.outgoing()
        revoked = self.cancelled() and not self._gives_back
        if outgoing is not None and not revoked:
            text = " ".join(reason.split())[:MAX_REASON]
            back = pb.WorkerMessage.LeaseGivenBack(lease=self.id, reason=text, leaving=self._leaving)
            outgoing.put(pb.WorkerMessage(given_back=back))
        self._home.over(self, f"not wanted any more: {reason}" if revoked else f"given back: {reason}")

    def _discard_files(self) -> None:
        """The sockets, and the file of the log once the store has what is in it."""
        store, path, log = self._tools.store, self.feed.path, self._log
        with contextlib.suppress(EnvironmentProblem, OSError):
            store.discard(self._agents)
            if path:
                store.submit(Batch()).add_done_callback(lambda _: store.discard(path, log))

    def _check_store(self, error: BaseException) -> None:
        """Whether anything can be written at all; else this is the end of the worker."""
        if not isinstance(error, EnvironmentProblem | OSError):
            return
        if self._tools.keeper.is_lost:
            self._home.broken(EnvironmentProblem("the process that keeps the mounts has ended"))
        try:
            self._tools.store.commit(Batch())
        except EnvironmentProblem as problem:
            self._home.broken(problem)

    def _send_sealed(self, sealed: pb.Sealed) -> bool:
        outgoing = self._home.outgoing()
        return outgoing is not None and outgoing.put(pb.WorkerMessage(sealed=sealed))

    def _room(self) -> bool:
        until = time.monotonic() + ROOM_SECONDS
        self._home.wait_for_stream(ROOM_SECONDS)
        outgoing = self._home.outgoing()
        return outgoing is not None and outgoing.wait_for_room(until - time.monotonic(), sealed=True)


LOOK_SECONDS = 0.1
MAX_REASON = 500
"""Characters of a reason that others take."""
