"""What a worker's outcome is for a build: a result that the server keeps, or the failure of the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.errors import BuildgraphError, CorruptBlob, DefinitionError
from cache.promises import Names, Origin, Promise
from cache.result import Result
from compiler.fleet.trust import Distrusted
from worker.action import CommandFailed, TimedOut
from worker.output import TAIL_LINES
from worker.shown_lines import LINE_LIMIT

if TYPE_CHECKING:
    from buildgraph.v1 import fleet_pb2

MAX_TEXT = 2000
"""Characters of a worker's message."""
MAX_SECONDS = 1e9


def promise_in(result: bytes, origin: Origin) -> Promise:
    """What the server has of an encoded result. Raises Distrusted for one that makes no sense."""
    from cache.wire import decode_result

    try:
        found = decode_result(result)
    except CorruptBlob as error:
        raise Distrusted(error.message) from None
    layer = found.layer
    if layer is None or layer.tar is None or layer.listing is None or layer.content == layer.diff_id:
        raise Distrusted("the result has no layer of its own")
    log = str(found.log) if found.log is not None else ""
    return Promise(found, origin, Names(str(layer.tar), str(layer.listing), log))


def log_promise(log: Digest, origin: Origin) -> Promise:
    """A log alone, for whoever reads it."""
    return Promise(Result(None, log, 0.0, 0.0, ""), origin, Names("", "", str(log)))


def failure_in(failure: fleet_pb2.Failure) -> BuildgraphError:
    """The same error that executing it here would have raised, with its log's digest. Raises Distrusted."""
    message, hint = failure.message[:MAX_TEXT], failure.hint[:MAX_TEXT]
    if failure.kind == "definition":
        return DefinitionError(message, hint=hint)
    tail = [line[:LINE_LIMIT] for line in failure.tail[-TAIL_LINES:]]
    error: CommandFailed
    if failure.kind == "timeout" and 0 <= failure.seconds < MAX_SECONDS:
        error = TimedOut(failure.seconds, tail)
    elif failure.kind == "command" and failure.exit_status:
        error = CommandFailed(failure.exit_status, tail)
    else:
        raise Distrusted(f"the failure is of a kind that nobody knows: {failure.kind[:40]!r}")
    try:
        error.log = Digest.parse(failure.log) if failure.log else None
    except ValueError:
        raise Distrusted("the failure's log is named by something that is no digest") from None
    return error
