"""Agent: a worker of the fleet, as long as it lives: joins, takes leases, comes back, drains."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from typing import TYPE_CHECKING

import grpc
from buildgraph.v1 import fleet_pb2 as pb

from cache.errors import BuildgraphError, EnvironmentProblem
from cache.remote.trouble import trouble
from cache.size_text import bytes_text
from worker.fleet.agent_lease import KEEP_SECONDS, MAX_REASON, AgentLease
from worker.fleet.agent_stream import AgentStream, Newer
from worker.fleet.protocol import VERSION
from worker.fleet.signed_texts import hello_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cache.remote.caller import Caller
    from worker.fleet.agent_lease import Tools
    from worker.fleet.agent_outgoing import Outgoing
    from worker.fleet.agent_stream import Welcome
    from worker.fleet.offer import Offer

BEAT_SECONDS = 0.1
"""How often logs are sent on, and is looked what is due."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before a stream that broke is opened again: twice as long each time, more or less."""
SIGNAL_SECONDS = 0.5
"""Until a signal is handled that the kernel gave to another thread than the main one."""
STOP_SECONDS = 5.0
"""For killed steps to be gone and leases to be given back."""
MOST_TOLD = 45_000
"""Layers that are told of; a scheduler takes 50,000."""
MOST_CACHES = 5_000
FATAL = frozenset(
    (
        grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT,
    )
)  # fmt: skip
"""Before it ever joined these mean that it never will."""


class Agent:
    """`run` from the main thread; `drain` and `interrupt` from signal handlers."""

    def __init__(self, offer: Offer, tools: Tools, caller: Caller, say: Callable[[str], None]) -> None:
        """say: writes a line for people."""
        self._offer = offer
        self._tools = tools
        self._caller = caller
        self._say = say
        self._incarnation = os.urandom(16).hex()
        self._lock = threading.Condition()
        self._leases: dict[str, AgentLease] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._slots = threading.Semaphore(offer.slots)
        self._caches = set(offer.caches)
        self._stream: AgentStream | None = None
        self._outgoing: Outgoing | None = None
        self._renew_seconds = 1.0
        self._joined = False
        self._draining = False
        self._stopping = False
        self._told = ""
        self._wake = threading.Event()
        self._orders: queue.SimpleQueue[str | BuildgraphError] = queue.SimpleQueue()

    def run(self) -> bool:
        """Until it has drained; false if it was interrupted. Raises BuildgraphError if it cannot join, or is broken."""
        self._tools.hot.changed = self._layers_changed
        self._tools.mounts.send = self._send
        beat = threading.Thread(target=self._guarded, args=(self._beat,), name="beat", daemon=True)
        connection = threading.Thread(target=self._guarded, args=(self._connect,), name="connection", daemon=True)
        beat.start()
        connection.start()
        while True:
            try:
                # Not for ever: a signal that another thread got is not handled before this one wakes.
                order = self._orders.get(timeout=SIGNAL_SECONDS)
            except queue.Empty:
                continue
            if order == "drain":
                self._drain()
            elif order == "drained":
                self._tools.mounts.finish()
                self._stop(connection, "")
                self._say("drained")
                return True
            elif order == "interrupt":
                self._stop(connection, "the worker was stopped", leaving=True)
                return False
            elif isinstance(order, BuildgraphError):
                self._stop(connection, order.message)
                raise order

    def drain(self) -> None:
        """Finish what it has, take nothing new. May be called from a signal handler."""
        self._orders.put("drain")

    def interrupt(self) -> None:
        """Give back what it has. May be called from a signal handler."""
        self._orders.put("interrupt")

    def _guarded(self, loop: Callable[[], None]) -> None:
        """A thread without which the worker is none: if it ends, so does the worker, and is started again."""
        try:
            loop()
        except Exception as error:  # noqa: BLE001, whatever it is
            text = f"the worker is broken: {type(error).__name__}: {error}"
            self._orders.put(EnvironmentProblem(text, hint="start it again; what it had to do others do"))

    # the connection

    def _connect(self) -> None:
        pause = FIRST_PAUSE
        while not self._is_stopping():
            stream = AgentStream(self._caller, self)
            with self._lock:
                self._stream = stream
            try:
                stream.run()
                text = "the scheduler has ended the connection"
            except grpc.RpcError as error:
                found = trouble(error, self._caller.settings)
                if not self._joined and error.code() in FATAL:
                    self._orders.put(found)
                    return
                text = found.message
            except Newer as error:
                self._orders.put(error)
                return
            except Exception as error:  # noqa: BLE001, of a thread without which the worker is none
                text = f"an error of the worker itself: {type(error).__name__}: {error}"
            finally:
                with self._lock:
                    self._outgoing = None
                    leases = list(self._leases.values())
                    self._lock.notify_all()
                for lease in leases:
                    lease.hang_up()
            if self._is_stopping():
                return
            if text != self._told:
                self._told = text
                self._say(f"{text}; trying again")
            pause = FIRST_PAUSE if stream.welcome is not None else min(LONGEST_PAUSE, pause * 2)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311, so that a fleet does not come back as one

    def _is_stopping(self) -> bool:
        return self._stopping

    def hello(self, nonce: bytes) -> pb.WorkerMessage.Hello:
        offer, identity = self._offer, self._tools.identity
        with self._lock:
            leases = [lease.held() for lease in self._leases.values()]
            caches = sorted(self._caches)
            draining = self._draining
        return pb.WorkerMessage.Hello(
            version=VERSION, name=offer.name, program=offer.program, slots=offer.slots, memory=offer.memory,
            platforms=offer.platforms, features=offer.features, labels=offer.labels,
            layers=self._tools.hot.diff_ids()[:MOST_TOLD], caches=caches, key=identity.public,
            signature=identity.sign(hello_text(nonce, offer.name, self._incarnation)), leases=leases,
            # Once it is welcomed the scheduler keeps it, and somebody may have said otherwise since.
            cordoned=offer.cordoned and not self._joined, incarnation=self._incarnation, draining=draining,
        )  # fmt: skip

    def welcomed(self, welcome: Welcome, outgoing: Outgoing) -> None:
        offer = self._offer
        for name in welcome.lost:
            self.revoked(name, "the scheduler gave it to another worker meanwhile")
        self._tools.mounts.shares = welcome.shares_mounts
        with self._lock:
            leases = list(self._leases.values())
            self._outgoing = outgoing
            self._renew_seconds = welcome.renew_seconds
            self._lock.notify_all()
            if self._draining:
                outgoing.put(pb.WorkerMessage(drain=pb.WorkerMessage.Drain()))
        for lease in leases:
            lease.deliver(outgoing)
        slots = f"{offer.slots} {'slot' if offer.slots == 1 else 'slots'}"
        again = "again" if self._joined else f"with {slots} and {bytes_text(offer.memory)}"
        self._joined, self._told = True, ""
        text = f"joined {self._caller.settings.origin} as {offer.name}, {again}"
        self._say(f"{text}, its key is {self._tools.identity.fingerprint}" if again != "again" else text)

    # what the scheduler says

    def leased(self, lease: pb.SchedulerMessage.Lease) -> None:
        with self._lock:
            if lease.lease in self._leases:
                return
            outgoing = self._outgoing
            full = len(self._leases) >= 2 * self._offer.slots + 2
            leaves = self._draining or self._stopping
            refusal = "it drains" if leaves else "it has too many leases" if full else ""
            if not refusal:
                made = AgentLease(lease, self._tools, self)
                refusal = self._begin(made)
        if refusal:
            if outgoing is not None:
                outgoing.put(_given_back(lease.lease, refusal, leaving=leaves))
            return
        self._say(f"begins {made.text}")
        self._wake.set()

    def _begin(self, lease: AgentLease) -> str:
        """Why it cannot be begun, "" if it is. The lock is held, so that whoever waits for threads finds none that does
        not run yet."""
        thread = threading.Thread(target=self._work, args=(lease,), name="lease", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no more
            return f"it cannot start a thread: {error}"
        self._leases[lease.id] = lease
        self._threads[lease.id] = thread
        return ""

    def _work(self, lease: AgentLease) -> None:
        try:
            lease.run(self._slots)
            self._tidy()
        finally:
            with self._lock:
                self._threads.pop(lease.id, None)
                self._lock.notify_all()

    def _tidy(self) -> None:
        try:
            freed = self._tools.hot.tidy()
        except (BuildgraphError, OSError) as error:
            self._say(f"cannot clean up: {getattr(error, 'message', '') or error}")
            return
        if freed:
            self._say(f"removed {bytes_text(freed)} of layers that were not used lately")

    def revoked(self, name: str, reason: str) -> None:
        with self._lock:
            lease = self._leases.get(name)
        if lease is not None:
            lease.cancel(reason or "it was revoked")
            if lease.is_done:
                self._forget(lease)

    def settled(self, name: str, taken: bool, reason: str) -> None:
        with self._lock:
            lease = self._leases.get(name)
        if lease is not None and lease.is_done:
            self._forget(lease)
            if not taken:
                self._say(f"the result of {lease.text} was not taken: {reason}")

    def sealed(self, sealed: pb.Sealed) -> None:
        with self._lock:
            lease = self._leases.get(sealed.lease)
        if lease is not None:
            lease.take(sealed)

    # what leases say

    def outgoing(self) -> Outgoing | None:
        return self._outgoing

    def wait_for_stream(self, seconds: float) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: self._outgoing is not None, seconds)

    def ended(self, lease: AgentLease, text: str) -> None:
        self._say(f"{lease.text}: {text}, {time.monotonic() - lease.began:.1f} s")

    def over(self, lease: AgentLease, text: str) -> None:
        self.ended(lease, text)
        self._forget(lease)

    def _forget(self, lease: AgentLease) -> None:
        with self._lock:
            if self._leases.get(lease.id) is lease:
                del self._leases[lease.id]
            idle = self._draining and not self._leases
        if idle:
            self._orders.put("drained")

    def broken(self, problem: BuildgraphError) -> None:
        self._orders.put(problem)

    def _send(self, message: pb.WorkerMessage) -> bool:
        outgoing = self._outgoing
        return outgoing is not None and outgoing.put(message)

    def used_caches(self, names: Collection[str]) -> None:
        with self._lock:
            new = set(names) - self._caches
            if not new or len(self._caches) >= MOST_CACHES:
                return
            self._caches |= new
            held = pb.WorkerMessage.LayersHeld(caches=sorted(self._caches))
            if self._outgoing is not None:
                self._outgoing.put(pb.WorkerMessage(held=held))

    def _layers_changed(self, added: Sequence[str], removed: Sequence[str]) -> None:
        with self._lock:
            caches = sorted(self._caches)
            outgoing = self._outgoing
        if outgoing is not None:
            held = pb.WorkerMessage.LayersHeld(added=added, removed=removed, caches=caches)
            outgoing.put(pb.WorkerMessage(held=held))

    # as time passes

    def _beat(self) -> None:
        renewed = 0.0
        while not self._stopping:
            now = time.monotonic()
            with self._lock:
                stream, outgoing, leases = self._stream, self._outgoing, list(self._leases.values())
            if stream is not None:
                stream.look(now)
            for lease in leases:
                if lease.done_at is not None and now - lease.done_at > KEEP_SECONDS:
                    self.over(lease, "nobody took its result")
                elif outgoing is not None and not lease.is_done:
                    lease.feed.send(outgoing)
            if outgoing is not None and leases and now - renewed >= self._renew_seconds:
                renewed = now
                renewal = pb.WorkerMessage.Renewal(leases=[lease.id for lease in leases])
                outgoing.put(pb.WorkerMessage(renewal=renewal))
            if leases:
                time.sleep(BEAT_SECONDS)
            else:
                self._wake.wait(1.0)
                self._wake.clear()

    # the end

    def _drain(self) -> None:
        with self._lock:
            if self._draining:
                return
            self._draining = True
            count = len(self._leases)
            if self._outgoing is not None:
                self._outgoing.put(pb.WorkerMessage(drain=pb.WorkerMessage.Drain()))
        self._say(f"drains: takes nothing new, {count} to finish")
        if not count:
            self._orders.put("drained")

    def _stop(self, connection: threading.Thread, reason: str, *, leaving: bool = False) -> None:
        """reason: why what is left is given back, "" if nothing is. leaving: only because it ends, so that it may have
        it again."""
        with self._lock:
            leases = list(self._leases.values())
            threads = list(self._threads.values())
            self._stopping = True
            stream = self._stream
        for lease in leases:
            lease.cancel(reason, give_back=True, leaving=leaving)
        until = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._give_back_rest(reason, leaving=leaving)
        if stream is not None:
            stream.outgoing.finish()
            connection.join(max(1.0, until - time.monotonic()))

    def _give_back_rest(self, reason: str, *, leaving: bool) -> None:
        """What could not be ended in time goes elsewhere at once, and not when its lease expires."""
        with self._lock:
            leases = self._leases.items()
            # What is done is on its way, and may only be tidied up after.
            left = [name for name, lease in leases if name in self._threads and not lease.is_done]
            outgoing = self._outgoing
        if outgoing is None:
            return
        for name in left:
            outgoing.put(_given_back(name, reason, leaving=leaving))


def _given_back(lease: str, reason: str, *, leaving: bool) -> pb.WorkerMessage:
    back = pb.WorkerMessage.LeaseGivenBack(lease=lease, reason=reason[:MAX_REASON], leaving=leaving)
    return pb.WorkerMessage(given_back=back)
