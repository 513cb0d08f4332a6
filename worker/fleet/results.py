"""Results: what workers made is checked, kept in the action cache, and found there again."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb
from buildgraph.v1 import remote_execution_pb2, team_pb2
from google.protobuf.message import DecodeError

from cache.errors import CorruptBlob
from cache.promises import Names
from cache.recipe import Recipe
from cache.remote.action_results import action_text, encode_action_result, name_by, signed_text
from cache.server.action_cache import find_results, keep_result
from cache.server.refusal import invalid
from cache.wire import decode_result
from worker.fleet.identity import verify
from worker.fleet.service_limits import MAX_TAIL, MAX_TEXT
from worker.fleet.signed_texts import outcome_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cache.digest import Digest
    from cache.result import Result
    from cache.server.access import Caller
    from cache.server.core import Core

KINDS = ("command", "timeout", "definition")
_BLOB = re.compile(r"[0-9a-f]{64}/[0-9]{1,13}")


class Results:
    """May be used by several threads at once."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def find(self, namespace: str, key: str, workers: Collection[bytes] = ()) -> pb.ActionDone | None:
        """The result of an action, if all that it names is there. workers: keys of those that may have made it, of
        whom one has signed it; none for anybody."""
        first = self._find(namespace, key, workers)
        self._core.meter.asked(namespace, *((0, 1) if first is None else (1, 0)))
        return first

    def _find(self, namespace: str, key: str, workers: Collection[bytes]) -> pb.ActionDone | None:
        names = [_action_name(key, worker) for worker in sorted(workers)] or [_action_name(key)]
        kept = find_results(self._core.shelf, namespace, "blake3", names)
        results = (remote_execution_pb2.ActionResult.FromString(kept[name]) for name in names if name in kept)
        found = (done for result in results if (done := _done_of(key, result)) is not None)
        return next((done for done in found if not workers or _made_by(done, namespace, workers)), None)

    def keep(
        self,
        caller: Caller,
        worker: str,
        namespace: str,
        key: str,
        outcome: pb.Outcome,
        workers: Collection[bytes] = (),
        *,
        anew: bool = False,
    ) -> pb.ActionDone:
        """Check an outcome that a worker signed; a result is durable on return. What builds are told of it: an earlier
        result that would have done, by one of `workers` if any are named. Some build may have got that before the
        server started again, and those that build the same at the same time get the same. anew: no earlier one does.

        Raises Refused if it is not what it should be or names what is not there, StoreProblem.
        """
        done = pb.ActionDone(key=key, worker=worker, outcome=outcome)
        if outcome.HasField("result") == outcome.HasField("failure"):
            raise invalid("an outcome is either a result or a failure")
        if outcome.HasField("failure"):
            self._check_failure(namespace, outcome.failure)
            return done
        result = _checked(outcome.result.SerializeToString())
        layer = result.layer
        names = Names(_text(layer and layer.tar), _text(layer and layer.listing), _text(result.log))
        self._check_there(namespace, [name for name in names if name])
        earlier = None if anew else self._find(namespace, key, workers)
        if earlier is not None:
            return earlier
        message = encode_action_result(Recipe(key), result, names)
        # Beside the result: who made it, and the signature, for those who trust only some.
        message.execution_metadata.auxiliary_metadata.add().Pack(done)
        # Also under its worker's key: a client that publishes what it got of this has no signature, and comes over it.
        latest = () if workers and not anew and self._find(namespace, key, ()) else (_action_name(key),)
        keep_result(
            self._core, namespace, "blake3", _action_name(key, outcome.worker_key), message, caller, *latest
        )
        return done

    def _check_failure(self, namespace: str, failure: pb.Failure) -> None:
        texts = (failure.message, failure.hint, *failure.tail)
        too_long = len(failure.tail) > MAX_TAIL or any(len(text) > 10 * MAX_TEXT for text in texts)
        if failure.kind not in KINDS or too_long:
            raise invalid("a failure has a kind that is known, and texts of usual length")
        if failure.log:
            if not _BLOB.fullmatch(failure.log):
                raise invalid("the log of a failure is named by something that is no digest")
            self._check_there(namespace, (failure.log,))

    def _check_there(self, namespace: str, names: Sequence[str]) -> None:
        """In the namespace itself: what a worker may read elsewhere is not taken over, for it put all of it here."""
        missing = self._core.shelf.missing(namespace, "blake3", names)
        if missing:
            raise invalid(f"the outcome names a blob that is missing, {missing[0]}")


def _made_by(done: pb.ActionDone, namespace: str, workers: Collection[bytes]) -> bool:
    outcome = done.outcome
    if outcome.worker_key not in workers:
        return False
    return verify(outcome.worker_key, outcome.signature, outcome_text(namespace, done.key, outcome))


def _action_name(key: str, worker: bytes = b"") -> str:
    """worker: whose result it is; "" for the latest."""
    return name_by("blake3", signed_text(key, worker) if worker else action_text("content", key))


def _text(digest: Digest | None) -> str:
    return "" if digest is None else str(digest)


def _checked(data: bytes) -> Result:
    """Raises Refused."""
    try:
        result = decode_result(data)
    except CorruptBlob as error:
        raise invalid(error.message) from None
    if result.layer is not None and result.layer.tar is None:
        raise invalid("a result has a layer without its tar")
    return result


def _done_of(key: str, result: remote_execution_pb2.ActionResult) -> pb.ActionDone | None:
    """None for a result that is none of buildgraph's."""
    shared, done = team_pb2.Shared(), pb.ActionDone()
    with contextlib.suppress(DecodeError):
        packed = result.execution_metadata.auxiliary_metadata
        if not any(each.Unpack(shared) for each in packed) or shared.content_key != key:
            return None
        signed = any(each.Unpack(done) for each in packed)
        if signed and done.key == key and done.outcome.result == shared.result:
            return done
        return pb.ActionDone(key=key, worker=shared.result.made_by, outcome=pb.Outcome(result=shared.result))
    return None
