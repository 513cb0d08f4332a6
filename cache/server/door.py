"""Door: whoever may not call at all is turned away before a byte of their message is taken."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from cache.server.calls import CALL
from cache.server.limits import MAX_UNGUARDED
from cache.server.refusal import Refused, exhausted, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from cache.server.access import Guard

UNGUARDED = ("/grpc.health.", "/grpc.reflection.")
"""Services that ask nobody who they are."""


class Door(grpc.ServerInterceptor):
    """The outermost interceptor. Without it a client that has no token could have the server take 4 MiB and hold a
    thread for as long as that lasts, in as many calls as there are threads; or watch the health in all of them."""

    def __init__(
        self,
        guard: Guard,
        turned_away: Callable[[str, grpc.ServicerContext, Refused], None],
        pools: Mapping[str, ThreadPoolExecutor] | None = None,
    ) -> None:
        """turned_away: is told the method and why. pools: threads for methods, by `/SERVICE/METHOD`, that do not take
        them from everybody's."""
        self._pools = pools or {}
        self._guard = guard
        self._turned_away = turned_away
        self._unguarded = threading.Semaphore(MAX_UNGUARDED)
        self._wrapped: dict[str, Any] = {}

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            handler = continuation(details)
            if handler is None:
                return None
            wrapped = self._wrapped[details.method] = self._wrap(details.method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        """handler: takes a stream, as `Arrival` makes all of them do."""
        check = self._enter if method.startswith(UNGUARDED) else self._identify
        inner = handler.stream_stream if handler.response_streaming else handler.stream_unary

        def behaviour(requests: Any, context: grpc.ServicerContext) -> Any:
            CALL.begin()
            try:
                check(context)
            except Exception as error:  # noqa: BLE001, whatever a guard fails with: nobody comes in
                refused = refusal_of(error)
                self._turned_away(method.rpartition("/")[2], context, refused)
                _abort(context, refused)
            return inner(requests, context)

        pool = self._pools.get(method)
        if pool is not None:
            behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]  # where gRPC looks for it
        make: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _identify(self, context: grpc.ServicerContext) -> None:
        self._guard.identify(context)

    def _enter(self, context: grpc.ServicerContext) -> None:
        """Raises Refused if there are too many."""
        if not self._unguarded.acquire(blocking=False):
            raise exhausted(f"{MAX_UNGUARDED} calls ask for the health already; try again in a moment")
        if not context.add_callback(self._unguarded.release):
            self._unguarded.release()


def _abort(context: grpc.ServicerContext, refused: Refused) -> NoReturn:
    context.abort(refused.code, refused.text)
    raise AssertionError("abort raises")
