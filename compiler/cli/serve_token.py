"""`buildgraph serve token`: who may use the team's cache."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING

from cache.disk_usage import disk_bytes
from cache.errors import EnvironmentProblem, UsageError
from cache.server import tokens
from cache.server.patterns import check_pattern
from cache.size_text import bytes_text, parse_size
from compiler.cli import settings
from compiler.cli.gc_policy import age
from compiler.cli.options import Parser
from compiler.cli.serve_options import TOKENS
from compiler.cli.streams import say
from compiler.cli.table import table
from compiler.progress.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

VERSION = 1
"""Of the JSON of `list`."""
HELP = "see buildgraph serve token create --help"
MIN_MESSAGE = 64 << 10
"""Bytes: a message of fewer is mostly names, and no client can make its lookups so small."""


def run(arguments: Sequence[str]) -> int:
    """The exit code, or an exception."""
    parser = Parser(prog="buildgraph serve token", description="Say who may use the team's cache.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a token and print its secret, once")
    _add_create(create)
    listing = actions.add_parser("list", help="show all tokens; their secrets are not known")
    listing.add_argument("--format", default="table", choices=("table", "json"), help="for people or for programs")
    revoke = actions.add_parser("revoke", help="take a token back; a server that runs knows within a second")
    revoke.add_argument("id", metavar="ID", help="as `list` shows it, or the token's name")
    for each in (create, listing, revoke):
        each.add_argument("--tokens", default="", metavar="FILE", help=f"the file (default: {TOKENS} in the store)")
        each.add_argument("--store", default="", metavar="DIR", help="the store that is served (BUILDGRAPH_STORE)")
    parsed = parser.parse_args(list(arguments))
    path = _path(parsed)
    if parsed.action == "create":
        return _create(path, parsed)
    if parsed.action == "revoke":
        return _revoke(path, parsed.id)
    return _list(path, parsed.format)


def _add_create(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--name", required=True, metavar="NAME", help="whose it is: stands in logs and records, so no secret")
    add("--scope", default="", metavar="SCOPES", help="read, write, execute, admin, with commas (default: read)")
    where = "where: main, 'pr/*', '**'; several times (default: the default namespace)"
    add("--namespace", action="append", default=[], metavar="PATTERN", help=where)
    both = "both at once, several times: read:main, read,write:pr/*"
    add("--grant", action="append", default=[], metavar="SCOPES:PATTERN", help=both)
    add("--expires", metavar="TIME", help="after which it is not good any more: 90d, 12h (default: never)")
    instead = "no secret: a client certificate of that common name (or SAN=…) is enough"
    add("--certificate", default="", metavar="CN=NAME", help=instead)
    add("--max-bytes", metavar="SIZE", help="that may stand in the store by its name")
    add("--max-rate", type=float, metavar="N", help="requests a second")
    add("--max-message", metavar="SIZE", help=f"bytes of one message, {bytes_text(MIN_MESSAGE)} at least")

def _create(path: str, parsed: argparse.Namespace) -> int:
    grants = [tokens.parse_grant(text) for text in parsed.grant]
    if parsed.scope or parsed.namespace or not grants:
        scopes = tokens.parse_scopes(parsed.scope or "read")
        grants = [*(tokens.Grant(scopes, check_pattern(pattern)) for pattern in parsed.namespace or [""]), *grants]
    if parsed.max_rate is not None and not 0 < parsed.max_rate < 1e6:
        raise UsageError(f"--max-rate: {parsed.max_rate:g} is no rate", hint=HELP)
    message = _size("--max-message", parsed.max_message, path)
    if message is not None and message < MIN_MESSAGE:
        text = f"--max-message: {message} bytes are too few for any client, {bytes_text(MIN_MESSAGE)} is the least"
        raise UsageError(text, hint=HELP)
    limits = tokens.TokenLimits(_size("--max-bytes", parsed.max_bytes, path), parsed.max_rate, message)
    with _changing(path):
        known = tokens.load(path).all
        lifetime = _lifetime(parsed.expires)
        token, secret = tokens.create(
            known, parsed.name, grants, lifetime=lifetime, certificate=parsed.certificate, limits=limits
        )
        tokens.save(path, [*known, token])
    what = f"token {token.id} of {token.name}: {' '.join(grant.text for grant in grants)}{_until(token)}"
    if not secret:
        say(f"{what}\nwho shows a certificate with {token.certificate} has it\n")
        return 0
    say(f"{what}\n\n  {secret}\n\nIt is shown this once. Clients take it from BUILDGRAPH_TOKEN.\n")
    return 0


def _revoke(path: str, asked: str) -> int:
    with _changing(path):
        known = tokens.load(path).all
        found = [token for token in known if token.id == asked]
        # The one of that name that is in force, else the last that was.
        named = [token for token in known if token.name == asked]
        found += [token for token in named if not token.revoked] or named[-1:]
        if not found:
            raise UsageError(f"there is no token {printable(asked)[:80]}", hint="see buildgraph serve token list")
        if found[0].revoked:
            say(f"token {found[0].id} of {found[0].name} was revoked before\n")
            return 0
        now = int(time.time())
        tokens.save(path, [token._replace(revoked=now) if token.id == found[0].id else token for token in known])
    say(f"token {found[0].id} of {found[0].name} is revoked\n")
    return 0


def _list(path: str, form: str) -> int:
    known = tokens.load(path).all
    now = time.time()
    if form == "json":
        listed = [
            {
                "id": token.id, "name": token.name, "state": token.state(now) or "good",
                "certificate": token.certificate,
                "grants": [{"scopes": sorted(g.scopes), "namespaces": g.pattern} for g in token.grants],
                "created": token.created, "expires": token.expires or None, "limits": token.limits._asdict(),
            }
            for token in known
        ]  # fmt: skip
        say(json.dumps({"version": VERSION, "tokens": listed}, indent=2) + "\n")
        return 0
    if not known:
        say(f"there are no tokens in {printable(path)}\n")
        return 0
    rows = [("ID", "NAME", "STATE", "GRANTS", "CREATED", "EXPIRES", "LIMITS")]
    for token in known:
        grants = " ".join(grant.text for grant in token.grants)
        name = f"{token.name} ({token.certificate})" if token.certificate else token.name
        row = token.id, printable(name), token.state(now) or "good", printable(grants)
        rows.append((*row, _day(token.created), _day(token.expires) or "never", _limits(token.limits)))
    say(table(rows))
    return 0


def _limits(limits: tokens.TokenLimits) -> str:
    texts = []
    if limits.bytes_stored is not None:
        texts.append(f"stored {bytes_text(limits.bytes_stored)}")
    if limits.requests_per_second is not None:
        texts.append(f"{limits.requests_per_second:g}/s")
    if limits.message_bytes is not None:
        texts.append(f"message {bytes_text(limits.message_bytes)}")
    return ", ".join(texts)


def _path(parsed: argparse.Namespace) -> str:
    defaults = settings.load()
    given = parsed.tokens or ("" if parsed.store else str(defaults.serve.get("tokens", "")))
    return os.path.abspath(given) if given else os.path.join(os.path.abspath(parsed.store or defaults.store), TOKENS)


@contextlib.contextmanager
def _changing(path: str) -> Iterator[None]:
    """Nobody else changes the file meanwhile. Raises EnvironmentProblem."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lifetime(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = age(text)
    except ValueError as error:
        raise UsageError(f"--expires: {error}", hint=HELP) from None
    if seconds <= 0:
        raise UsageError("--expires: it would never be good", hint=HELP)
    return seconds


def _size(option: str, text: str | None, path: str) -> int | None:
    if text is None:
        return None
    try:
        percent = disk_bytes(os.path.dirname(path)) if text.endswith("%") else 0
        return parse_size(text, percent)
    except (ValueError, OSError) as error:
        raise UsageError(f"{option}: {error}", hint=HELP) from None


def _until(token: tokens.Token) -> str:
    return f", until {_day(token.expires)}" if token.expires else ""


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds)) if seconds else ""
