"""Calls: sees every call begin and end, for the metrics, the journal and the limit of a token's messages."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast
from urllib.parse import unquote

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.server.journal import Journal
    from cache.server.refusal import Refused

QUIET = frozenset((grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED))
"""How calls end that nobody needs a line about."""
if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]


class Call(threading.local):
    """The call that this thread answers. The guard notes here who it was."""

    who = ""
    scope = ""
    namespace: str | None = None

    def begin(self) -> None:
        self.who = self.scope = ""
        self.namespace = None


CALL = Call()


class Watcher(Protocol):
    """Is told of every call. May be called by several threads at once; must be quick and not fail."""

    def began(self, *, stream: bool) -> None: ...

    def ended(self, method: str, status: str, seconds: float, *, stream: bool) -> None: ...


class Calls(grpc.ServerInterceptor):
    """An interceptor for a synchronous server: each call is answered by one thread from begin to end."""

    def __init__(
        self,
        journal: Journal,
        watcher: Watcher,
        message_limit: Callable[[grpc.ServicerContext], int | None] = lambda _: None,
    ) -> None:
        """message_limit: bytes of a message that a caller may send; None for no limit of its own."""
        self._journal = journal
        self._watcher = watcher
        self._message_limit = message_limit
        self._wrapped: dict[str, _Handler] = {}

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], _Handler | None], details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        wrapped = self._wrapped.get(details.method)
        if wrapped is not None:
            return wrapped
        handler = continuation(details)
        if handler is None:
            self._watcher.began(stream=False)
            self._watcher.ended("unknown", "UNIMPLEMENTED", 0.0, stream=False)
            self._journal.write("refused", method=details.method, status="UNIMPLEMENTED")
            return None
        wrapped = self._wrapped[details.method] = self._wrap(details.method.rpartition("/")[2], handler)
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        stream = handler.request_streaming or handler.response_streaming
        inner: Any
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

            def answer_many(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                watched = _Watched(self, method, context, stream=True)
                try:
                    yield from inner(self._checked(request, context, handler.request_streaming), context)
                except BaseException as error:
                    watched.failed(error)
                    raise
                finally:
                    watched.end(request, None)

            many: Any = grpc.unary_stream_rpc_method_handler
            if handler.request_streaming:
                many = grpc.stream_stream_rpc_method_handler
            return cast("_Handler", many(answer_many, handler.request_deserializer, handler.response_serializer))
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            watched = _Watched(self, method, context, stream=stream)
            response = None
            try:
                response = inner(self._checked(request, context, handler.request_streaming), context)
            except BaseException as error:
                watched.failed(error)
                raise
            finally:
                watched.end(request, response)
            return response

        one: Any = grpc.unary_unary_rpc_method_handler
        if handler.request_streaming:
            one = grpc.stream_unary_rpc_method_handler
        return cast("_Handler", one(answer, handler.request_deserializer, handler.response_serializer))

    def _checked(self, request: Any, context: grpc.ServicerContext, streaming: bool) -> Any:
        limit = self._message_limit(context)
        if limit is None:
            return request
        if streaming:
            return _limited(request, context, limit)
        _check_size(request, context, limit)
        return request

    def ended(self, call: _Watched, method: str, context: grpc.ServicerContext, request: Any, response: Any) -> None:
        """Of `_Watched`."""
        status = call.status
        self._watcher.ended(method, status.name, time.perf_counter() - call.since, stream=call.stream)
        if status not in QUIET:
            details = context.details()  # type: ignore[attr-defined]
            text = details.decode("utf-8", "replace") if isinstance(details, bytes) else str(details or "")
            self._say("refused", method, context, status=status.name, text=text)
        elif method in _SAID and status is grpc.StatusCode.OK:
            self._say("published", method, context, **_SAID[method](request))
        elif method == "BatchUpdateBlobs" and response is not None:
            wrong = [each.status for each in response.responses if each.status.code not in (0, 5)]
            if wrong:
                self._say("refused", method, context, status=wrong[0].code, text=wrong[0].message, count=len(wrong))

    def turned_away(self, method: str, context: grpc.ServicerContext, refused: Refused) -> None:
        """A call ended before its message was taken, and never came here."""
        self._watcher.began(stream=False)
        self._watcher.ended(method, refused.code.name, 0.0, stream=False)
        self._say("refused", method, context, status=refused.code.name, text=refused.text)

    def _say(self, event: str, method: str, context: grpc.ServicerContext, **fields: object) -> None:
        namespace = CALL.namespace
        self._journal.write(
            event, method=method, who=CALL.who, peer=unquote(context.peer()),
            namespace="(default)" if namespace == "" else namespace, **fields,
        )  # fmt: skip


class _Watched:
    """One call."""

    def __init__(self, calls: Calls, method: str, context: grpc.ServicerContext, *, stream: bool) -> None:
        self._calls = calls
        self._method = method
        self._context = context
        self.stream = stream
        self.since = time.perf_counter()
        self.status = grpc.StatusCode.OK
        CALL.begin()
        calls._watcher.began(stream=stream)

    def failed(self, error: BaseException) -> None:
        code = self._context.code()  # type: ignore[attr-defined]
        if code is not None:
            self.status = code
        elif isinstance(error, GeneratorExit) or not self._context.is_active():
            self.status = grpc.StatusCode.CANCELLED
        else:
            self.status = grpc.StatusCode.UNKNOWN

    def end(self, request: Any, response: Any) -> None:
        if self.status is grpc.StatusCode.OK:
            code = self._context.code()  # type: ignore[attr-defined]
            if code is not None:
                self.status = code
            elif not self._context.is_active():
                self.status = grpc.StatusCode.CANCELLED
        self._calls.ended(self, self._method, self._context, request, response)


def _limited(requests: Iterator[Any], context: grpc.ServicerContext, limit: int) -> Iterator[Any]:
    for request in requests:
        _check_size(request, context, limit)
        yield request


def _check_size(request: Any, context: grpc.ServicerContext, limit: int) -> None:
    size = request.ByteSize()
    if size > limit:
        text = f"a message has {size} bytes, this token may send {limit}; send smaller batches or pieces"
        _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    context.abort(code, text)
    raise AssertionError("abort raises")


def _said_of_result(request: Any) -> dict[str, object]:
    return {"action": f"{request.action_digest.hash}/{request.action_digest.size_bytes}"}


def _said_of_records(request: Any) -> dict[str, object]:
    return {"kinds": ",".join(sorted({record.kind for record in request.records})), "count": len(request.records)}


_SAID = {"UpdateActionResult": _said_of_result, "PutRecords": _said_of_records}
"""Calls that change what others get, and what the journal says of them."""
