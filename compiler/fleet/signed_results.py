"""Signed results: what trusted workers made, as the server's action cache keeps it beside what anybody may write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2
from google.protobuf.message import DecodeError

from cache.promises import Origin
from cache.remote.action_results import name_by, signed_text
from compiler.fleet.outcome import promise_in
from compiler.fleet.trust import Distrusted, Trust

if TYPE_CHECKING:
    from buildgraph.v1 import remote_execution_pb2

    from cache.promises import Promise
    from cache.remote.client import Client


def find_signed(client: Client, namespace: str, key: str, trusted: frozenset[str]) -> Promise | None:
    """The result of an action that one of these workers has signed; None if there is none. key: its content key.
    trusted: fingerprints. Raises RemoteTrouble."""
    if not client.can.is_ours or client.can.function != "blake3":
        return None  # it has no fleet
    trust = Trust(namespace, trusted)
    names = [name_by("blake3", signed_text(key, worker)) for worker in trust.keys]
    origin = Origin(client.settings.origin, namespace, "blake3")
    for _, message in client.action_results(namespace, names):
        try:
            return _checked(message, key, trust, origin)
        except Distrusted:
            continue  # a server may keep there what it likes
    return None


def _checked(message: remote_execution_pb2.ActionResult, key: str, trust: Trust, origin: Origin) -> Promise:
    """Raises Distrusted."""
    done = fleet_pb2.ActionDone()
    try:
        signed = any(each.Unpack(done) for each in message.execution_metadata.auxiliary_metadata)
    except DecodeError:
        signed = False
    if not signed or done.key != key or not done.outcome.signature:
        raise Distrusted("nobody has signed it")
    trust.check_outcome(done)
    if not done.outcome.HasField("result"):
        raise Distrusted("it is no result")
    return promise_in(done.outcome.result.SerializeToString(), origin)
