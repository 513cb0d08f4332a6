"""A worker that lies, otherwise the program: `liar.py LEASE_SECONDS LIE ARGUMENT…`. The lies: see `LIES`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from hasty import hurry

if TYPE_CHECKING:
    from collections.abc import Callable


def wrong_layer(outcome: Any) -> None:
    """Says that the layer is another one than its tar."""
    if outcome.HasField("result") and outcome.result.HasField("layer"):
        outcome.result.layer.diff_id = f"sha256:{os.urandom(32).hex()}"


def no_such_blob(outcome: Any) -> None:
    """Names a tar that nobody has."""
    if outcome.HasField("result") and outcome.result.HasField("layer"):
        outcome.result.layer.tar.hash = os.urandom(32)


def says_of_outcomes(lie: Callable[[Any], None]) -> None:
    from worker.fleet.publishing import Publishing

    honest = Publishing._signed

    def signed(self: Publishing, namespace: str, key: str, outcome: Any) -> Any:
        lie(outcome)
        return honest(self, namespace, key, outcome)

    Publishing._signed = signed


def foreign_signature() -> None:
    """Signs what it made with a key that is not its own."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from worker.fleet.identity import Identity
    from worker.fleet.publishing import Publishing

    honest, other = Publishing._signed, Identity(Ed25519PrivateKey.generate())

    def signed(self: Publishing, namespace: str, key: str, outcome: Any) -> Any:
        made = honest(self, namespace, key, outcome)
        of_other = Publishing(self._remotes, other)
        made.signature = honest(of_other, namespace, key, outcome).signature
        made.worker_key = self._identity.public
        return made

    Publishing._signed = signed


def lease_never_had() -> None:
    """Answers first for leases around its own, which are others', and only then for its own."""
    from buildgraph.v1 import fleet_pb2 as pb

    from worker.fleet.agent_lease import AgentLease

    honest = AgentLease.deliver

    def deliver(self: AgentLease, outgoing: Any) -> None:
        if outgoing is not None and self._done is not None:
            boot, _, number = self.id.partition(".")
            for step in (-3, -2, -1, 1, 2, 3):
                false = pb.WorkerMessage()
                false.CopyFrom(self._done)
                false.done.lease = f"{boot}.{int(number or 0) + step}"
                outgoing.put(false)
        honest(self, outgoing)

    AgentLease.deliver = deliver


def lease_lost() -> None:
    """Does not stop what was revoked, renews whatever it ever had, and answers for all of it, twice."""
    from worker.fleet.agent import Agent
    from worker.fleet.agent_lease import AgentLease

    honest = AgentLease.deliver

    def deliver(self: AgentLease, outgoing: Any) -> None:
        honest(self, outgoing)
        if outgoing is not None and self._done is not None:
            outgoing.put(self._done)

    Agent.revoked = lambda self, name, reason: None
    AgentLease.deliver = deliver


LIES: dict[str, Callable[[], None]] = {
    "wrong-layer": lambda: says_of_outcomes(wrong_layer),
    "no-such-blob": lambda: says_of_outcomes(no_such_blob),
    "foreign-signature": foreign_signature,
    "lease-never-had": lease_never_had,
    "lease-lost": lease_lost,
}

if __name__ == "__main__":
    seconds, lie = float(sys.argv.pop(1)), sys.argv.pop(1)
    if seconds:
        hurry(seconds)
    LIES[lie]()
    from compiler.cli.main import entry

    entry()
