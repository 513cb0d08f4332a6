"""What can be the matter with a cache server, as a build tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from cache.errors import RemoteError

if TYPE_CHECKING:
    from cache.remote_settings import RemoteSettings

MAX_DETAILS = 300
"""Characters of a server's own words that are shown."""


class RemoteTrouble(RemoteError):
    """A call failed, and was tried as often as it makes sense."""


class Unreachable(RemoteTrouble):
    """Nobody answered, or not in time; asking again may help another day."""


class Denied(RemoteTrouble):
    """The server knows who calls, or does not, and says no."""


class Unsupported(RemoteTrouble):
    """The server does not know the call."""


class Missing(RemoteTrouble):
    """What was asked for is not there."""


TRANSIENT = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED,
    )
)  # fmt: skip
"""Worth another try: a proxy or a network on the way makes some of them out of a connection that broke."""
_KINDS: dict[grpc.StatusCode, type[RemoteTrouble]] = {
    grpc.StatusCode.NOT_FOUND: Missing,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
}
_WORDS = {
    grpc.StatusCode.UNAVAILABLE: "it does not answer",
    grpc.StatusCode.DEADLINE_EXCEEDED: "it did not answer in time",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "it takes no more",
    grpc.StatusCode.PERMISSION_DENIED: "it does not allow that",
    grpc.StatusCode.UNAUTHENTICATED: "it does not know this token",
    grpc.StatusCode.UNIMPLEMENTED: "it does not know the call",
}


def trouble(error: grpc.RpcError, settings: RemoteSettings) -> RemoteTrouble:
    """The failure of a call, in words."""
    code = error.code()
    details = str(error.details() or "").replace("\n", " ").strip()
    if settings.token:
        details = details.replace(settings.token, "…")  # I4, whatever a server repeats
    words = _WORDS.get(code, code.name)
    text = f"the remote {settings.origin}: {words}" + (f" ({details[:MAX_DETAILS]})" if details else "")
    kind = _KINDS.get(code, Unreachable if code in TRANSIENT else RemoteTrouble)
    return kind(text)
