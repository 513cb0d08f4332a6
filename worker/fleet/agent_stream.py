"""AgentStream: one stream of a worker to the scheduler, from its hello to its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import fleet_pb2_grpc

from cache.errors import RemoteError
from worker.fleet.agent_outgoing import Outgoing
from worker.fleet.protocol import VERSION

if TYPE_CHECKING:
    import grpc

    from cache.remote.caller import Caller

WELCOME_SECONDS = 20.0
"""For the scheduler to send its challenge and to answer the hello; then the stream is given up."""


class Newer(RemoteError):
    """The scheduler says what cannot be understood here."""

    def __init__(self, version: int) -> None:
        text = f"the scheduler speaks version {version} of the fleet's protocol, and this worker knows only {VERSION}"
        super().__init__(text, hint="install a newer buildgraph on this machine")


class Welcome(NamedTuple):
    """renew_seconds: between two renewals. lost: leases that are not ours any more. shares_mounts: snapshots of cache
    mounts are wanted."""

    renew_seconds: float
    lost: tuple[str, ...]
    shares_mounts: bool


class Listener(Protocol):
    """What is done with what the scheduler says; from the thread of `run`, one call at a time."""

    def hello(self, nonce: bytes) -> pb.WorkerMessage.Hello: ...

    def welcomed(self, welcome: Welcome, outgoing: Outgoing) -> None: ...

    def leased(self, lease: pb.SchedulerMessage.Lease) -> None: ...

    def revoked(self, lease: str, reason: str) -> None: ...

    def settled(self, lease: str, taken: bool, reason: str) -> None: ...

    def sealed(self, sealed: pb.Sealed) -> None: ...


class AgentStream:
    """`run` once. welcome: what the scheduler said, None as long as it has not."""

    def __init__(self, caller: Caller, listener: Listener) -> None:
        self._caller = caller
        self._listener = listener
        self.outgoing = Outgoing()
        self.welcome: Welcome | None = None
        self._greeted = False
        self._began = time.monotonic()
        self._call: grpc.Call | None = None

    def run(self) -> None:
        """Until it ends well. Raises grpc.RpcError, Newer."""
        outgoing = self.outgoing
        stub = fleet_pb2_grpc.FleetWorkersStub(self._caller.channel)
        self._began = time.monotonic()
        call = stub.Work(iter(outgoing), metadata=self._caller.metadata)
        self._call = call
        try:
            for message in call:
                self._take(message)
        finally:
            outgoing.end()
            call.cancel()

    def _greet(self, nonce: bytes) -> None:
        """Nothing else goes out before it: others get `outgoing` with the welcome. One challenge a stream."""
        if not self._greeted:
            self._greeted = True
            self.outgoing.put(pb.WorkerMessage(hello=self._listener.hello(nonce)))

    def look(self, now: float) -> None:
        """Give it up if nobody answers. now: as time.monotonic."""
        call = self._call
        if self.welcome is None and call is not None and now - self._began > WELCOME_SECONDS:
            call.cancel()

    def _take(self, message: pb.SchedulerMessage) -> None:
        listener, kind = self._listener, message.WhichOneof("message")
        if kind == "challenge":
            self._greet(message.challenge.nonce)
        elif kind == "welcome":
            said = message.welcome
            if said.version > VERSION:
                raise Newer(said.version)
            self.welcome = Welcome(min(max(said.renew_seconds, 0.1), 60.0), tuple(said.lost), said.shares_mounts)
            listener.welcomed(self.welcome, self.outgoing)
        elif kind == "lease":
            listener.leased(message.lease)
        elif kind == "revoke":
            listener.revoked(message.revoke.lease, message.revoke.reason)
        elif kind == "settled":
            listener.settled(message.settled.lease, message.settled.taken, message.settled.reason)
        elif kind == "sealed":
            listener.sealed(message.sealed)
