"""Gate: who may open streams, how many of them, and whether they still may."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import grpc

from cache.server.refusal import Refused, exhausted, refusal_of
from worker.fleet.rights import may_somewhere
from worker.fleet.service_limits import (
    MAX_BUILD_STREAMS,
    MAX_BUILDS_CALLER,
    MAX_WATCHERS,
    MAX_WATCHERS_CALLER,
    MAX_WORKER_STREAMS,
    MAX_WORKERS_CALLER,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.server.access import Caller, Guard, Scope
    from worker.fleet.outbox import Outbox

Kind = Literal["build", "worker", "watcher"]
BOUNDS: dict[Kind, tuple[int, int]] = {
    "build": (MAX_BUILD_STREAMS, MAX_BUILDS_CALLER),
    "worker": (MAX_WORKER_STREAMS, MAX_WORKERS_CALLER),
    "watcher": (MAX_WATCHERS, MAX_WATCHERS_CALLER),
}
"""Streams of all, and of one caller."""


ALSO: tuple[Scope, ...] = ("read", "write")
"""Scopes that a build needs beside `execute`."""


class _Open(NamedTuple):
    context: grpc.ServicerContext
    outbox: Outbox[Any]
    check: Callable[[Caller], None]


class Gate:
    """May be used by several threads at once."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._lock = threading.Lock()
        self._streams: Counter[tuple[Kind, str]] = Counter()
        self._open: set[_Open] = set()

    # who may

    def admit_build(self, context: grpc.ServicerContext, namespace: str) -> Caller:
        """Nothing ties the key of an action to what is executed under it: who has actions executed decides what is
        kept under a key, as whoever writes does. Raises Refused."""
        caller = self._guard.admit(context, "execute", namespace)
        for scope in ALSO:
            if not caller.may(scope, namespace):
                return self._guard.admit(context, scope, namespace)
        return caller

    def admit_worker(self, context: grpc.ServicerContext) -> Caller:
        """Raises Refused."""
        caller = self._guard.identify(context)
        check_worker(caller)
        return caller

    def admit_watcher(self, context: grpc.ServicerContext) -> Caller:
        """Raises Refused."""
        caller = self._guard.identify(context)
        if not may_somewhere(caller, "read") and not may_somewhere(caller, "execute"):
            raise _denied(f"{caller.name} may neither read nor execute in any namespace of this server")
        return caller

    def admit_look(self, context: grpc.ServicerContext, namespace: str) -> Caller:
        """Raises Refused."""
        caller = self._guard.identify(context)
        executes = caller.may("execute", namespace) and not caller.may("read", namespace)
        return self._guard.admit(context, "execute" if executes else "read", namespace)

    def admit_admin(self, context: grpc.ServicerContext) -> Caller:
        """Workers are everybody's: whoever commands them is admin of the default namespace. Raises Refused."""
        return self._guard.admit(context, "admin", "")

    # how many

    @contextlib.contextmanager
    def enter(self, kind: Kind, caller: Caller) -> Iterator[None]:
        """Raises Refused: RESOURCE_EXHAUSTED."""
        of_all, of_caller = BOUNDS[kind]
        with self._lock:
            if self._streams[kind, ""] >= of_all or self._streams[kind, f"by {caller.name}"] >= of_caller:
                raise exhausted(f"too many {kind} streams at the same time; end some, or try again in a moment")
            self._add(kind, caller, 1)
        try:
            yield
        finally:
            with self._lock:
                self._add(kind, caller, -1)

    def _add(self, kind: Kind, caller: Caller, count: int) -> None:
        for key in ((kind, ""), (kind, f"by {caller.name}")):
            self._streams[key] += count
            if not self._streams[key]:
                del self._streams[key]

    # whether they still may

    @contextlib.contextmanager
    def opened(
        self, context: grpc.ServicerContext, outbox: Outbox[Any], check: Callable[[Caller], None]
    ) -> Iterator[None]:
        """The stream ends with the call. check: raises Refused if the caller, as they are now, may not go on."""
        stream = _Open(context, outbox, check)
        if not context.add_callback(outbox.end):
            outbox.end()
        with self._lock:
            self._open.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(stream)

    def review(self) -> None:
        """End the streams of those whose token was taken back or says something else now."""
        for context, outbox, check in self._all():
            try:
                check(self._guard.identify(context))
            except Refused as refused:
                outbox.end(refused.code, refused.text)

    def end_stuck(self, seconds: float) -> None:
        """End the streams whose other end takes nothing."""
        now = time.monotonic()
        for context, outbox, _ in self._all():
            if outbox.is_stuck(now, seconds):
                context.cancel()

    def end_all(self, code: grpc.StatusCode, text: str) -> None:
        for _, outbox, _ in self._all():
            outbox.end(code, text)

    def _all(self) -> tuple[_Open, ...]:
        with self._lock:
            return tuple(self._open)


def check_worker(caller: Caller) -> None:
    """Raises Refused."""
    if not may_somewhere(caller, "execute", "read"):
        text = f"{caller.name} may not execute and read in any namespace; a worker's token needs both scopes"
        raise _denied(text)


def check_build(caller: Caller, namespace: str) -> None:
    """Raises Refused."""
    if not all(caller.may(scope, namespace) for scope in ("execute", *ALSO)):
        raise _denied(f"{caller.name} may not execute in this namespace any more")


def end_by(outbox: Outbox[Any], context: grpc.ServicerContext, error: Exception) -> None:
    """End a stream because its reader failed."""
    if context.code() is None and context.is_active():  # type: ignore[attr-defined]  # else it has a status already
        refused = refusal_of(error)
        outbox.end(refused.code, refused.text)
    outbox.end()


def _denied(text: str) -> Refused:
    return Refused(grpc.StatusCode.PERMISSION_DENIED, text)
