"""Arrival: waits for the first message of each call, but not for ever."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc

from cache.server.limits import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.server.watchdog import Watchdog

_LOG = logging.getLogger("buildgraph.server")


class Arrival(grpc.ServerInterceptor):
    """Right behind the door: the watchdog ends calls that opened and then say nothing.

    gRPC waits for the one message of a usual call in a thread of the pool, without an end: with as many such calls as
    there are threads, a client without any token could stop the server. So every method is served as one that takes a
    stream, which is the same on the wire and, as measured, costs the same; its first message is awaited here.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._wrapped: dict[str, Any] = {}

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            handler = continuation(details)
            if handler is None:
                return None
            wrapped = self._wrapped[details.method] = self._wrap(details.method.rpartition("/")[2], handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        make: Any = grpc.stream_unary_rpc_method_handler
        one, many = handler.unary_unary, handler.stream_unary
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
            one, many = handler.unary_stream, handler.stream_stream
        behaviour = self._stream(method, many) if handler.request_streaming else self._single(method, one)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _single(self, method: str, inner: Callable[[Any, grpc.ServicerContext], Any]) -> Any:
        def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            request = self._first(method, requests, context)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its message came")
            return inner(request, context)

        return behaviour

    def _stream(self, method: str, inner: Callable[[Iterator[Any], grpc.ServicerContext], Any]) -> Any:
        def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return inner(self._awaited(method, requests, context), context)

        return behaviour

    def _awaited(self, method: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """From when the first one is asked for: a service may have something to say before."""
        first = self._first(method, requests, context)
        if first is not None:
            yield first
            yield from requests

    def _first(self, method: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self._watchdog.awaiting(context)
        peer = context.peer()  # of a call that ended nobody knows any more
        request = None
        try:
            request = next(requests, None)
            return request
        finally:
            self._watchdog.arrived(context)
            if request is None:
                # gRPC itself refuses a message that is too large, and says nothing of it on this side.
                text = "%s of %s: no message came, or one of more than %d bytes, which was refused"
                _LOG.warning(text, method, peer, MAX_MESSAGE)
