"""RemoteSettings: which cache server is used, as whom, and what is read from it and written to it."""

from __future__ import annotations

import re
from typing import NamedTuple

from cache.errors import UsageError

DEFAULT_PORT = 8980
_URL = re.compile(r"(grpcs?)://(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?)(?:/(.*))?")
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_MAX_NAMESPACE = 100
RESERVED = frozenset(
    ("blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs")
)  # fmt: skip
"""Parts that the API keeps for itself: they stand in the names of resources behind the namespace."""
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
FORM = "grpc[s]://HOST[:PORT][/NAMESPACE]"


class RemoteAddress(NamedTuple):
    """host: without the port; IPv6 in brackets. namespace: "" for the default one."""

    tls: bool
    host: str
    port: int
    namespace: str

    @property
    def is_loopback(self) -> bool:
        return _LOOPBACK.fullmatch(self.host) is not None


class RemoteSettings(NamedTuple):
    """tls: the server must prove who it is. reads: namespaces that are asked, in this order. write: that results go
    to; None for none. token: secret. ca, certificate, key: files in PEM form, "" for none. insists: whether the user
    named the namespace to write to, and so is told if that is not allowed. patience: seconds for which a server that
    does not answer is asked again, since nothing can be done without it; 0 for some tries."""

    tls: bool
    target: str
    reads: tuple[str, ...]
    write: str | None
    token: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    insists: bool = False
    patience: float = 0.0

    @property
    def origin(self) -> str:
        """What the server is called in records and messages."""
        return f"grpc{'s' if self.tls else ''}://{self.target}"

    def __repr__(self) -> str:
        # I4: whoever prints it does not print the token.
        return f"RemoteSettings({self.origin}, reads={self.reads}, write={self.write!r})"


def parse_remote(url: str) -> RemoteAddress:
    """Raises UsageError."""
    found = _URL.fullmatch(url)
    port = int(found[3] or DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise UsageError(f"the remote {url[:100]!r} is not of the form {FORM}")
    return RemoteAddress(found[1] == "grpcs", found[2], port, check_namespace((found[4] or "").strip("/")))


def check_namespace(name: str) -> str:
    """The name. Raises UsageError."""
    parts = name.split("/")
    wrong = any(part in (".", "..") for part in parts)
    if len(name) > _MAX_NAMESPACE:
        raise UsageError(f"the namespace {name[:30]!r}… has {len(name)} characters; {_MAX_NAMESPACE} are the most")
    if name and (wrong or not _NAMESPACE.fullmatch(name)):
        raise UsageError(f"{name[:100]!r} is no namespace: letters, digits, '.', '_' and '-', with single '/' between")
    reserved = next((part for part in parts if part in RESERVED), "")
    if reserved:
        raise UsageError(f"{name!r} is no namespace: the Remote Execution API keeps the word {reserved!r} for itself")
    return name
