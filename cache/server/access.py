"""Access: who calls, and what guards the doors. The guard that reads tokens stands elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import grpc

from cache.server.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

Scope = Literal["read", "write", "execute", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "execute", "admin")


class Caller(NamedTuple):
    """Who calls. name: for records and log lines, never a secret. may: whether a scope is granted in a namespace.
    namespaces: patterns of those that may be used at all, for whoever asks."""

    name: str
    may: Callable[[Scope, str], bool]
    namespaces: tuple[str, ...] = ("**",)


class Guard(Protocol):
    """May be called by several threads at once. Refuses by raising `Refused`, or by `context.abort`."""

    def identify(self, context: grpc.ServicerContext) -> Caller:
        """Who calls, whatever they may do. Refuses with UNAUTHENTICATED."""
        ...

    def admit(self, context: grpc.ServicerContext, scope: Scope, namespace: str) -> Caller:
        """Every method begins with this. namespace: checked already. Refuses with UNAUTHENTICATED,
        PERMISSION_DENIED or, beyond a rate, RESOURCE_EXHAUSTED."""
        ...

    def accept(self, caller: Caller, namespace: str, size: int) -> None:
        """Before so many new bytes are stored. Refuses with RESOURCE_EXHAUSTED beyond a quota."""
        ...


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

    def accept(self, caller: Caller, namespace: str, size: int) -> None:
        """Anonymous callers have no quota of their own."""
