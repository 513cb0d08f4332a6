"""Refused: a request that is answered with a status; and what turns failures into one, without a traceback."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, TypeVar

import grpc

from cache.disk_usage import free_bytes
from cache.errors import BuildgraphError, CorruptBlob, StoreProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOG = logging.getLogger("buildgraph.server")
_Self = TypeVar("_Self")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
MIN_FREE = 64 << 20
"""Bytes that must be free before an upload begins: a store that cannot write any more needs a restart."""


class Refused(Exception):
    """code: the status. text: one sentence that says what to do."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def invalid(text: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> Refused:
    return Refused(grpc.StatusCode.NOT_FOUND, text)


def exhausted(text: str) -> Refused:
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def never_fits(text: str) -> Refused:
    """For a limit that waiting does not help against."""
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, text)


def refusal_of(error: Exception) -> Refused:
    """Any failure as a status: one line, nothing of the inside."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, CorruptBlob):
        return Refused(grpc.StatusCode.DATA_LOSS, error.message)
    if isinstance(error, BuildgraphError):
        _LOG.error("%s", error.message)
        return Refused(grpc.StatusCode.UNAVAILABLE, "the server's store has a problem; its log says which")
    _LOG.error("%s: %s", type(error).__name__, str(error).replace("\n", " ")[:500])
    return Refused(grpc.StatusCode.INTERNAL, f"the server failed ({type(error).__name__}); its log says more")


def check_space(directory: str, size: int) -> None:
    """Refuse what the disk has no room for."""
    try:
        free = free_bytes(directory)
    except OSError as error:
        raise StoreProblem(f"cannot read {directory}: {error.strerror}") from None
    if free < size + MIN_FREE:
        raise exhausted("the server's disk is full; ask whoever runs it to prune, or to give it more room")


def answered(
    method: Callable[[_Self, _Request, grpc.ServicerContext], _Response],
) -> Callable[[_Self, _Request, grpc.ServicerContext], _Response]:
    """A method that ends with a status whatever happens in it."""

    @functools.wraps(method)
    def call(self: _Self, request: _Request, context: grpc.ServicerContext) -> _Response:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001, the last place that can turn it into a status
            raise _abort(context, error) from None

    return call


def answered_stream(
    method: Callable[[_Self, _Request, grpc.ServicerContext], Iterator[_Response]],
) -> Callable[[_Self, _Request, grpc.ServicerContext], Iterator[_Response]]:
    """The same for one that answers with a stream."""

    @functools.wraps(method)
    def call(self: _Self, request: _Request, context: grpc.ServicerContext) -> Iterator[_Response]:
        try:
            yield from method(self, request, context)
        except Exception as error:  # noqa: BLE001
            raise _abort(context, error) from None

    return call


def _abort(context: grpc.ServicerContext, error: Exception) -> Exception:
    if context.code() is not None or not context.is_active():  # type: ignore[attr-defined]
        return error  # it has a status already, or nobody who waits for one
    refused = refusal_of(error)
    try:
        context.abort(refused.code, refused.text)
    except Exception as aborted:  # noqa: BLE001, how gRPC ends a call
        return aborted
