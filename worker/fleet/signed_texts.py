"""What workers sign: the same parts for who signs, for the scheduler that lets them in, and for builds that check."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buildgraph.v1 import fleet_pb2 as pb


def hello_text(nonce: bytes, name: str, incarnation: str) -> tuple[str, ...]:
    """nonce: of the stream's challenge, so that no hello is of use on another stream."""
    return "buildgraph.v1 hello", nonce.hex(), name, incarnation


def lease_text(namespace: str, key: str, lease: str, seal_key: bytes) -> tuple[str, ...]:
    """key: of the action. Without it a server could show a build that wants one action the lease of another, and what
    the build seals for it would come to that other one's command."""
    return "buildgraph.v1 lease", namespace, key, lease, seal_key.hex()


def mount_text(namespace: str, snapshot: pb.MountSnapshot) -> tuple[str, ...]:
    layer = snapshot.layer.SerializeToString(deterministic=True).hex()
    return "buildgraph.v1 mount", namespace, snapshot.cache, layer, str(snapshot.made_at_ms)


def outcome_text(namespace: str, key: str, outcome: pb.Outcome) -> tuple[str, ...]:
    """outcome: with either a result or a failure; of one that has both, what builds would use counts: the result."""
    ended = outcome.result if outcome.HasField("result") else outcome.failure
    return "buildgraph.v1 outcome", namespace, key, ended.SerializeToString(deterministic=True).hex()
