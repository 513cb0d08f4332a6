"""Access: who calls, and what guards the doors. The guard that reads tokens stands elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import grpc

from cache.server.hold import Hold
from cache.server.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

Scope = Literal["read", "write", "execute", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "execute", "admin")


class Caller(NamedTuple):
    """Who calls. name: for records and log lines, never a secret. may: whether a scope is granted in a namespace.
    namespaces: patterns of those that may be used at all, for whoever asks. message_limit: bytes of a message that
    they may send; None for what the server takes from everybody."""

    name: str
    may: Callable[[Scope, str], bool]
    namespaces: tuple[str, ...] = ("**",)
    message_limit: int | None = None


class Guard(Protocol):
    """May be called by several threads at once. Refuses by raising `Refused`, or by `context.abort`."""

    def identify(self, context: grpc.ServicerContext) -> Caller:
        """Who calls, whatever they may do. Refuses with UNAUTHENTICATED."""
        ...

    def admit(self, context: grpc.ServicerContext, scope: Scope, namespace: str) -> Caller:
        """Every method begins with this. namespace: checked already. Refuses with UNAUTHENTICATED,
        PERMISSION_DENIED or, beyond a rate, RESOURCE_EXHAUSTED."""
        ...

    def accept(self, caller: Caller, namespace: str, size: int) -> Hold:
        """Before so many new bytes are stored, which is done in a `with`. Refuses beyond a quota with
        RESOURCE_EXHAUSTED, or FAILED_PRECONDITION if waiting does not help."""
        ...

    def take_over(self, namespace: str, blobs: int, size: int) -> Hold:
        """The same before blobs that another namespace has belong to this one, too: nobody's bytes."""
        ...


def may_put(caller: Caller, namespace: str) -> bool:
    """Whether they may store blobs: workers may that execute there, since their results consist of them."""
    return caller.may("write", namespace) or caller.may("execute", namespace)


def admit_putter(guard: Guard, context: grpc.ServicerContext, namespace: str) -> Caller:
    """`admit` for methods that store blobs; results under names of one's own choice need `write`."""
    caller = guard.identify(context)
    executes = caller.may("execute", namespace) and not caller.may("write", namespace)
    return guard.admit(context, "execute" if executes else "write", namespace)


class OpenGuard:
    """Lets everybody in with some scopes; nothing else is asked."""

    def __init__(self, *scopes: Scope) -> None:
        granted = frozenset(scopes)
        self._caller = Caller("anonymous", lambda scope, _namespace: scope in granted)

    def identify(self, context: grpc.ServicerContext) -> Caller:
        del context
        return self._caller

    def admit(self, context: grpc.ServicerContext, scope: Scope, namespace: str) -> Caller:
        del context
        if not self._caller.may(scope, namespace):
            text = f"this server lets nobody {scope} without a token; ask whoever runs it for one"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, text)
        return self._caller

    def accept(self, caller: Caller, namespace: str, size: int) -> Hold:
        """Nothing is counted."""
        return Hold()

    def take_over(self, namespace: str, blobs: int, size: int) -> Hold:
        return Hold()
