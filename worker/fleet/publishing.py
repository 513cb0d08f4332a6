"""Publishing: what a lease came to goes to the server: blobs first, then the signed outcome that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from cache.remote.writing import Outgoing
from cache.wire import encode_result
from worker.action import TimedOut
from worker.fleet.mount_layer import layer_message
from worker.fleet.signed_texts import mount_text, outcome_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.digest import Digest
    from cache.errors import BuildgraphError
    from cache.result import Layer, Result
    from worker.action import CommandFailed
    from worker.fleet.identity import Identity
    from worker.fleet.remotes import Remotes

MAX_TEXT = 8_000
"""Characters of a message, or of a line of a tail, that others take."""


class Publishing:
    """May be used by several threads at once."""

    def __init__(self, remotes: Remotes, identity: Identity) -> None:
        self._remotes = remotes
        self._identity = identity

    def result(self, namespace: str, key: str, result: Result, check: Callable[[], None]) -> pb.Outcome:
        """Have the server have all that the result names. Raises RemoteTrouble, StoreProblem, and soon what `check`
        does."""
        layer = result.layer
        self._put(namespace, (layer and layer.tar, layer and layer.listing, result.log), check)
        outcome = pb.Outcome()
        outcome.result.ParseFromString(encode_result(result))
        return self._signed(namespace, key, outcome)

    def failure(
        self,
        namespace: str,
        key: str,
        failed: CommandFailed,
        shown: Callable[[str], str],
        check: Callable[[], None],
    ) -> pb.Outcome:
        """Of a command that failed or took too long; with its log. shown: takes secrets out of a text. Raises as
        `result` does."""
        self._put(namespace, (failed.log,), check)
        late = isinstance(failed, TimedOut)
        failure = pb.Failure(
            kind="timeout" if late else "command", exit_status=failed.exit_status,
            seconds=failed.seconds if isinstance(failed, TimedOut) else 0.0, message=_text(shown(failed.message)),
            hint=_text(shown(failed.hint)), tail=[_text(shown(line)) for line in failed.tail],
            log="" if failed.log is None else str(failed.log),
        )  # fmt: skip
        return self._signed(namespace, key, pb.Outcome(failure=failure))

    def definition(self, namespace: str, key: str, error: BuildgraphError, shown: Callable[[str], str]) -> pb.Outcome:
        """Of an action that asks for what cannot be. shown: as of `failure`."""
        failure = pb.Failure(kind="definition", message=_text(shown(error.message)), hint=_text(shown(error.hint)))
        return self._signed(namespace, key, pb.Outcome(failure=failure))

    def mount(self, namespace: str, cache: str, layer: Layer, made_at: float) -> pb.MountSnapshot:
        """A signed snapshot of a cache mount, whose blobs the server has. made_at: seconds since the epoch. Raises
        RemoteTrouble, StoreProblem."""
        self._put(namespace, (layer.tar, layer.listing), lambda: None)
        snapshot = pb.MountSnapshot(cache=cache, made_at_ms=round(made_at * 1000), worker_key=self._identity.public)
        snapshot.layer.CopyFrom(layer_message(layer))
        snapshot.signature = self._identity.sign(mount_text(namespace, snapshot))
        return snapshot

    def _put(self, namespace: str, blobs: tuple[Digest | None, ...], check: Callable[[], None]) -> None:
        outgoing = [Outgoing(blob, str(blob)) for blob in dict.fromkeys(blobs) if blob is not None and blob.size]
        if outgoing:
            self._remotes.of(namespace).writer.put(namespace, outgoing, check)

    def _signed(self, namespace: str, key: str, outcome: pb.Outcome) -> pb.Outcome:
        outcome.signature = self._identity.sign(outcome_text(namespace, key, outcome))
        outcome.worker_key = self._identity.public
        return outcome


def _text(text: str) -> str:
    """As messages can carry it."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()
