"""What can be the matter with a cache server, as a build tells it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc

from cache.errors import RemoteError

if TYPE_CHECKING:
    from cache.remote_settings import RemoteSettings

MAX_DETAILS = 300
"""Characters of a server's own words that are shown."""
_UNVERIFIED = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]*)")
IN_REMOTE = "in [remote] of buildgraph.toml"


class RemoteTrouble(RemoteError):
    """A call failed, and was tried as often as it makes sense. why: in few words, as in «which does not answer»."""

    why = "cannot be used"


class Unreachable(RemoteTrouble):
    """Nobody answered, or not in time; asking again may help another day."""

    why = "does not answer"


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
    grpc.StatusCode.FAILED_PRECONDITION: "it refuses that",
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
    words = _WORDS.get(code, code.name) + (f" ({details[:MAX_DETAILS]})" if details else "")
    text = f"the remote {settings.origin}: {_tls_words(details, settings) or words}"
    kind = _KINDS.get(code, Unreachable if code in TRANSIENT else RemoteTrouble)
    found = kind(text)
    if code in _WORDS:
        found.why = _WORDS[code].removeprefix("it ")
    return found


def _tls_words(details: str, settings: RemoteSettings) -> str:
    """What is wrong between two that do not come to trust each other, and what helps; "" if it is something else."""
    unverified = _UNVERIFIED.search(details)
    if unverified is not None:
        reason = unverified[1].strip()
        if "expired" in reason or "not yet valid" in reason:
            return f"its certificate is not valid now: {reason}"
        by = f"by no authority of {settings.ca}" if settings.ca else "by no authority that this machine trusts"
        return (
            f"its certificate is {by} ({reason}); if it is one of your own, name its file "
            f'with ca = "FILE" {IN_REMOTE}, or in BUILDGRAPH_REMOTE_CA'
        )
    if "failed to connect" not in details:
        return ""  # it was connected before
    if "Hostname Verification" in details:
        return f"its certificate is not for the name {settings.target.rpartition(':')[0]}"
    if "WRONG_VERSION_NUMBER" in details:
        return "it speaks no TLS; if that is meant, its address begins with grpc://"
    if "Socket closed" in details and not settings.tls:
        return "it closes the connection (Socket closed); if it speaks TLS, its address begins with grpcs://"
    if "Socket closed" in details:
        shown = settings.certificate
        theirs = f"that it does not take {shown}" if shown else "that it wants a certificate of yours"
        said = f"it may be {theirs}: one is named with cert and key {IN_REMOTE}"
        return f"it closes the connection (Socket closed); {said}"
    return ""
