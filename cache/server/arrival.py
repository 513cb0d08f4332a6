"""Arrival: waits for the first message of each call, but not for ever."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.server.watchdog import Watchdog


class Arrival(grpc.ServerInterceptor):
    """The outermost interceptor: the watchdog ends calls that opened and then say nothing.

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
            wrapped = self._wrapped[details.method] = self._wrap(handler)
        return wrapped

    def _wrap(self, handler: Any) -> Any:
        make: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        if handler.request_streaming:
            behaviour = self._stream(handler.stream_stream if handler.response_streaming else handler.stream_unary)
        else:
            behaviour = self._single(handler.unary_stream if handler.response_streaming else handler.unary_unary)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _single(self, inner: Callable[[Any, grpc.ServicerContext], Any]) -> Any:
        def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            request = self._first(requests, context)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its message came")
            return inner(request, context)

        return behaviour

    def _stream(self, inner: Callable[[Iterator[Any], grpc.ServicerContext], Any]) -> Any:
        def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            first = self._first(requests, context)
            return inner(iter(()) if first is None else itertools.chain((first,), requests), context)

        return behaviour

    def _first(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self._watchdog.awaiting(context)
        try:
            return next(requests, None)
        finally:
            self._watchdog.arrived(context)
