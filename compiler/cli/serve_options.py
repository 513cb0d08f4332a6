"""ServeOptions: what `buildgraph serve` is told, by the command line or the table [serve] of buildgraph.toml."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.disk_usage import disk_bytes
from cache.errors import UsageError
from cache.size_text import parse_size
from compiler.cli.gc_policy import age
from compiler.cli.options import Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from cache.server.access import Scope
    from cache.server.quotas import NamespaceLimit

PORT = 8980
LISTEN = f"127.0.0.1:{PORT}"
TOKENS = "tokens.json"
"""In the store's directory, if --tokens says nothing else."""
GRACE = "30s"
MAX_GRACE = 3600.0
"""Seconds; whoever stops services waits no longer."""
MAX_USED = "50%"
ANONYMOUS: Mapping[str, tuple[Scope, ...]] = {
    "none": (),
    "read": ("read",),
    "write": ("read", "write"),
    "read,write": ("read", "write"),
    "write,execute": ("read", "write", "execute"),
    "read,write,execute": ("read", "write", "execute"),
}
"""Whoever may write may read, too: a client looks before it uploads."""
TEXTS = (
    "listen", "http", "anonymous", "tokens", "tls-cert", "tls-key", "tls-client-ca", "log", "grace", "max-used-space",
    "min-free-space", "unused-for", "cache-mounts",
)  # fmt: skip
"""Keys of the table whose values are texts, and the options of the same names."""
LIMITS = "namespace-limits"
SWITCHES = ("reflection",)
_ADDRESS = re.compile(r"([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%a-z]+\]):([0-9]{1,5})")


class ServeOptions(NamedTuple):
    """Paths are absolute or "". sizes in bytes, times in seconds, None for no limit. insist: whether the file of
    tokens was asked for, not only looked for."""

    store: str
    listen: str
    http: str
    anonymous: tuple[Scope, ...]
    tokens: str
    insist: bool
    tls_cert: str
    tls_key: str
    tls_client_ca: str
    log: str
    grace: float
    reflection: bool
    max_used: int | None
    min_free: int | None
    unused_for: float | None
    namespace_limits: tuple[NamespaceLimit, ...]
    shares_mounts: bool


def serve_parser() -> Parser:
    parser = Parser(
        prog="buildgraph serve",
        description="Serve a store to a team: the Remote Execution API's storage services, over gRPC, "
        "and a scheduler that gives out steps of builds to the workers that join.",
        epilog="`buildgraph serve token create|list|revoke` says who may call. Running it for good: docs/operate.md.",
    )
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", help=f"where clients call (default: {LISTEN})")
    add("--http", metavar="HOST:PORT", help="where /healthz, /metrics and the page are (default: nowhere)")
    add("--store", default="", metavar="DIR", help="the store that is served (BUILDGRAPH_STORE)")
    add("--anonymous", metavar="SCOPES", help="what callers without a token may do: none, read, write or write,execute")
    add("--tokens", metavar="FILE", help=f"who may do what (default: {TOKENS} in the store)")
    add("--tls-cert", metavar="FILE", help="certificate chain in PEM form; read again when it changes")
    add("--tls-key", metavar="FILE", help="its key")
    add("--tls-client-ca", metavar="FILE", help="let in only those who show a certificate by these authorities")
    add("--log", metavar="FILE", help="append the log there, not to standard error; opened again on SIGHUP")
    add("--grace", metavar="TIME", help=f"how long calls that run may go on after SIGTERM (default: {GRACE})")
    add("--max-used-space", metavar="SIZE", help=f"clean up beyond it: 200GB (default: {MAX_USED}% of the disk)")
    add("--min-free-space", metavar="SIZE", help="clean up until so much of the disk is free")
    add("--unused-for", metavar="TIME", help="remove what nobody used for so long: 90d")
    what = "what each such namespace may hold: 'pr/*=5GB'"
    add("--namespace-limit", action="append", default=[], metavar="PATTERN=SIZE", help=what)
    add("--cache-mounts", metavar="HOW", help="of workers: own (default), or shared: new ones begin with a snapshot")
    add("--reflection", action="store_true", help="let tools such as grpcurl list the services")
    return parser


def serve_options(parsed: argparse.Namespace, store: str, table: Mapping[str, Any]) -> ServeOptions:
    """The command line first, then the table, then what fits most. Raises UsageError."""

    def text(name: str, default: str = "") -> str:
        given = getattr(parsed, name.replace("-", "_"))
        return str(given if given is not None else table.get(name, default))

    def path(name: str) -> str:
        given = text(name)
        return os.path.abspath(given) if given else ""

    scopes = ANONYMOUS.get(text("anonymous", "none"))
    if scopes is None:
        raise _wrong("--anonymous", f"{text('anonymous')[:40]!r} is not one of {', '.join(ANONYMOUS)}")
    cert, key, client_ca = path("tls-cert"), path("tls-key"), path("tls-client-ca")
    if bool(cert) != bool(key) or (client_ca and not cert):
        raise UsageError("--tls-cert and --tls-key belong together, and --tls-client-ca to both", hint=_HELP)
    mounts = text("cache-mounts", "own")
    if mounts not in ("own", "shared"):
        raise _wrong("--cache-mounts", f"{mounts[:40]!r} is not own or shared")
    disk = disk_bytes(_there(store))
    limits = [*parsed.namespace_limit, *(f"{name}={size}" for name, size in table.get(LIMITS, {}).items())]
    unused_for = text("unused-for")
    return ServeOptions(
        store=store,
        listen=_address("--listen", text("listen", LISTEN)),
        http=_address("--http", text("http")) if text("http") else "",
        anonymous=scopes,
        tokens=path("tokens") or os.path.join(store, TOKENS),
        insist=bool(path("tokens")),
        tls_cert=cert,
        tls_key=key,
        tls_client_ca=client_ca,
        log=path("log"),
        grace=_time("--grace", text("grace", GRACE), MAX_GRACE),
        reflection=bool(parsed.reflection or table.get("reflection", False)),
        max_used=_size("--max-used-space", text("max-used-space", MAX_USED), disk),
        min_free=_size("--min-free-space", text("min-free-space"), disk),
        unused_for=_time("--unused-for", unused_for, 0.0) if unused_for else None,
        namespace_limits=tuple(_limit(each, disk) for each in limits),
        shares_mounts=mounts == "shared",
    )


_HELP = "see buildgraph serve --help"


def check_serve(path: str, table: object) -> None:
    """Raises UsageError for a table that cannot be understood. path: of the file, for the message."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: serve is no table", hint="write it as [serve] with one key a line")
    known = (*TEXTS, LIMITS, *SWITCHES)
    for name, value in table.items():
        if name not in known:
            raise UsageError(f"{path}: unknown key serve.{name}", hint=f"known are {', '.join(known)}")
        if name == LIMITS:
            if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
                hint = 'write it as [serve.namespace-limits] with lines such as "pr/*" = "5GB"'
                raise UsageError(f"{path}: serve.{name} is no table of sizes", hint=hint)
        elif name in SWITCHES:
            if not isinstance(value, bool):
                raise UsageError(f"{path}: serve.{name} is not true or false")
        elif not isinstance(value, str) or not value or "\0" in value:
            raise UsageError(f"{path}: serve.{name} is not a text in quotes")


def _address(option: str, text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise _wrong(option, f"{text[:80]!r} is no HOST:PORT such as {LISTEN} or [::]:{PORT}")
    return text if match[1] else f"[::]{text}"


def _size(option: str, text: str, disk: int) -> int | None:
    if not text:
        return None
    try:
        return parse_size(text, disk)
    except ValueError as error:
        raise _wrong(option, str(error)) from None


def _time(option: str, text: str, most: float) -> float:
    """Seconds; a bare number means them. most: 0 for any."""
    try:
        seconds = float(text) if re.fullmatch(r"[0-9]{1,9}", text) else age(text)
    except ValueError as error:
        raise _wrong(option, str(error)) from None
    if most and seconds > most:
        raise _wrong(option, f"{text[:40]} is more than an hour")
    return seconds


def _limit(text: str, disk: int) -> NamespaceLimit:
    from cache.server.patterns import check_pattern
    from cache.server.quotas import NamespaceLimit

    pattern, equals, size = text.rpartition("=")
    if not equals:
        raise _wrong("--namespace-limit", f"{text[:80]!r} is not PATTERN=SIZE such as 'pr/*=5GB'")
    return NamespaceLimit(check_pattern(pattern), _size("--namespace-limit", size or "?", disk) or 0)


def _wrong(option: str, text: str) -> UsageError:
    return UsageError(f"{option}: {text}", hint=_HELP)


def _there(directory: str) -> str:
    """The directory, or the nearest one above it that is there."""
    while not os.path.isdir(directory) and os.path.dirname(directory) != directory:
        directory = os.path.dirname(directory)
    return directory
