"""Which cache server is used: --remote and its kin, BUILDGRAPH_REMOTE, the table [remote] of buildgraph.toml."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from cache.errors import EnvironmentProblem, UsageError
from cache.remote_settings import FORM, RemoteSettings, check_namespace, parse_remote
from compiler.fleet_choice import MOST_SLOTS, MOST_TRUSTED, FleetChoice, check_fingerprint
from worker.labels import MAX_ASKED, parse_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXTS = ("url", "write", "token-file", "ca", "cert", "key")
LISTS = ("read", "trusted-workers")
SWITCHES = ("allow-plaintext-token",)
MAX_TOKEN = 4096
"""Bytes of a token; those of `buildgraph serve token create` have some fifty."""


def add_remote_options(parser: argparse.ArgumentParser, *, namespaces: bool = True) -> None:
    """namespaces: false where they mean nothing: then they are understood, for scripts, and not shown."""
    shown = "namespace to look in; may come several times", "namespace to publish in; - for none"
    reads, writes = shown if namespaces else (argparse.SUPPRESS, argparse.SUPPRESS)
    parser.add_argument("--remote", default=None, metavar="URL", help=f"the team's cache, {FORM} (BUILDGRAPH_REMOTE)")
    parser.add_argument("--remote-read", action="append", default=[], metavar="NS", help=reads)
    parser.add_argument("--remote-write", default=None, metavar="NS", help=writes)
    parser.add_argument("--no-remote", action="store_true", help="use no cache server, whatever is set")


def remote_settings(parsed: argparse.Namespace, table: Mapping[str, Any]) -> RemoteSettings | None:
    """What applies; None for no server. table: [remote] of buildgraph.toml. Raises UsageError, EnvironmentProblem."""
    if parsed.no_remote:
        if parsed.remote:
            raise UsageError("--remote and --no-remote exclude each other")
        return None
    url = parsed.remote if parsed.remote is not None else os.environ.get("BUILDGRAPH_REMOTE") or table.get("url", "")
    if not url:
        if parsed.remote_read or parsed.remote_write is not None:
            raise UsageError("--remote-read and --remote-write need a remote", hint="name it with --remote URL")
        return None
    address = parse_remote(url)
    write = parsed.remote_write if parsed.remote_write is not None else table.get("write")
    insists = write is not None
    target = None if write == "-" else check_namespace(write) if write is not None else address.namespace
    reads = [check_namespace(name) for name in parsed.remote_read or table.get("read", ())]
    if not reads:
        reads = [address.namespace] if target is None else [target, address.namespace]
    token = _token(table)
    if token and not address.tls and not address.is_loopback and not table.get("allow-plaintext-token", False):
        raise UsageError(
            f"a token may not go to {address.host} without TLS: whoever is on the way could read it",
            hint="use grpcs://, or say allow-plaintext-token = true in [remote] of buildgraph.toml",
        )
    authority = os.environ.get("BUILDGRAPH_REMOTE_CA") or table.get("ca", "")
    ca, cert, key = (os.path.expanduser(str(name)) for name in (authority, table.get("cert", ""), table.get("key", "")))
    if bool(cert) != bool(key):
        raise UsageError("remote.cert and remote.key belong together")
    for path in (ca, cert, key):
        _require_readable(path)
    return RemoteSettings(
        address.tls, f"{address.host}:{address.port}", tuple(dict.fromkeys(reads)), target, token,
        ca, cert, key, insists,
    )  # fmt: skip


def fleet_choice(
    local_slots: int | None, defaults: int | None, table: Mapping[str, Any], labels: Sequence[str] = ()
) -> FleetChoice:
    """What the user said about the fleet. local_slots, labels: of the command line; defaults: of buildgraph.toml.
    Raises UsageError."""
    if local_slots is not None and not 0 <= local_slots <= MOST_SLOTS:
        raise UsageError(f"--local-slots {local_slots}: it must be from 0 to {MOST_SLOTS}")
    slots = defaults if local_slots is None else local_slots
    return FleetChoice(slots, frozenset(table.get("trusted-workers", ())), _labels(labels))


def _labels(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    try:
        labels = dict(map(parse_label, texts))
    except ValueError as error:
        raise UsageError(f"--worker-label {error}") from None
    if len(labels) > MAX_ASKED:
        raise UsageError(f"--worker-label may name {MAX_ASKED} labels at most")
    return tuple(sorted(labels.items()))


def check_remote(path: str, table: object) -> None:
    """Raises UsageError for a table that cannot be understood. path: of the file, for the message."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: remote is no table", hint='write it as [remote] with a line url = "grpcs://…"')
    for name, value in table.items():
        if name not in (*TEXTS, *LISTS, *SWITCHES):
            hint = f"known are {', '.join((*TEXTS, *LISTS, *SWITCHES))}"
            if name == "token":
                hint = "a token stands in a file of its own, which token-file names, or in BUILDGRAPH_TOKEN"
            raise UsageError(f"{path}: unknown key remote.{name}", hint=hint)
        if name in SWITCHES:
            if not isinstance(value, bool):
                raise UsageError(f"{path}: remote.{name} is not true or false")
        elif name in LISTS:
            if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
                raise UsageError(f"{path}: remote.{name} is no list of names", hint=f'as in {name} = ["main"]')
            if name == "trusted-workers":
                if len(value) > MOST_TRUSTED:
                    raise UsageError(f"{path}: remote.{name} has more than {MOST_TRUSTED} fingerprints")
                for each in value:
                    check_fingerprint(each, f"{path}: remote.{name}")
        elif not isinstance(value, str) or "\0" in value or (not value and name != "write"):
            raise UsageError(f"{path}: remote.{name} is not a text in quotes")


def _require_readable(path: str) -> None:
    """Raises EnvironmentProblem. path: "" for none."""
    try:
        if path:
            with open(path, "rb"):
                pass
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the certificate {path}: {error.strerror}") from None


def _token(table: Mapping[str, Any]) -> str:
    token = os.environ.get("BUILDGRAPH_TOKEN", "")
    path = table.get("token-file", "")
    if not token and path:
        try:
            with open(os.path.expanduser(path), "rb") as file:
                token = file.read(MAX_TOKEN + 1).decode("utf-8", "replace")
        except OSError as error:
            raise EnvironmentProblem(f"cannot read the token in {path}: {error.strerror}") from None
    token = token.strip()
    if not (token.isascii() and token.isprintable() and len(token) <= MAX_TOKEN) or " " in token:
        # I4: it is not shown.
        raise UsageError("the token is no token: it has blanks or letters that none has")
    return token
