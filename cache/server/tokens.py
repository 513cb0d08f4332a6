"""Tokens: who may do what in which namespaces, in a file that holds no secret, only hashes of them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.errors import EnvironmentProblem, UsageError
from cache.server.access import SCOPES, Scope
from cache.server.patterns import check_pattern, matches, pattern_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION = 1
PREFIX = "bgt"
"""How secrets begin, so that scanners for leaked ones can know them: `bgt_ID_SECRET`."""
MAX_FILE = 8 << 20
"""Bytes: 20,000 tokens."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SECRET = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")


class Grant(NamedTuple):
    """Scopes in the namespaces that a pattern means."""

    scopes: frozenset[str]
    pattern: str

    @property
    def scope_text(self) -> str:
        return ",".join(scope for scope in SCOPES if scope in self.scopes)

    @property
    def text(self) -> str:
        return f"{self.scope_text}:{pattern_text(self.pattern)}"


class TokenLimits(NamedTuple):
    """What one token may take; None for no limit of its own. bytes_stored: that stand in the store by its name.
    message_bytes: of one message."""

    bytes_stored: int | None = None
    requests_per_second: float | None = None
    message_bytes: int | None = None


UNLIMITED = TokenLimits()


class Token(NamedTuple):
    """One who may call. hash: sha256 of the secret, "" if a certificate stands for it. Times in seconds since the
    epoch, 0 for never. certificate: `CN=NAME`, or `SAN=…` for a subject alternative name."""

    id: str
    name: str
    hash: str
    grants: tuple[Grant, ...]
    created: int
    expires: int = 0
    revoked: int = 0
    certificate: str = ""
    limits: TokenLimits = UNLIMITED

    def may(self, scope: Scope, namespace: str) -> bool:
        """Admins may do everything in their namespaces."""
        return any(
            (scope in grant.scopes or "admin" in grant.scopes) and matches(grant.pattern, namespace)
            for grant in self.grants
        )

    def state(self, now: float) -> str:
        """`revoked`, `expired`, "" if it is good."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and now >= self.expires else ""


def parse_grant(text: str) -> Grant:
    """`read,write:pr/*`. Raises UsageError."""
    scopes, colon, pattern = text.partition(":")
    if not colon:
        hint = "write SCOPES:PATTERN, for example read:main or read,write:pr/*"
        raise UsageError(f"the grant {text[:80]!r} says no namespace", hint=hint)
    return Grant(parse_scopes(scopes), check_pattern(pattern))


def parse_scopes(text: str) -> frozenset[str]:
    """Raises UsageError."""
    scopes = [scope.strip() for scope in text.split(",")]
    wrong = next((scope for scope in scopes if scope not in SCOPES), None)
    if wrong is not None:
        raise UsageError(f"there is no scope {wrong[:40]!r}", hint=f"known are {', '.join(SCOPES)}")
    return frozenset(scopes)


def create(
    tokens: Sequence[Token],
    name: str,
    grants: Iterable[Grant],
    *,
    lifetime: float | None = None,
    certificate: str = "",
    limits: TokenLimits = UNLIMITED,
) -> tuple[Token, str]:
    """A new token, and its secret, which is known nowhere else; "" if a certificate stands for it.

    Raises UsageError.
    """
    if not _NAME.fullmatch(name):
        hint = "a name has 1 to 64 letters, digits, '.', '_', '@' and '-'"
        raise UsageError(f"{name[:80]!r} is no name", hint=hint)
    if name == "anonymous" or any(token.name == name and not token.revoked for token in tokens):
        hint = "names tell callers apart; revoke that token, or use another"
        raise UsageError(f"the name {name} is taken", hint=hint)
    if certificate and not certificate.startswith(("CN=", "SAN=")):
        hint = "write CN=NAME for a common name, SAN=… for a subject alternative name"
        raise UsageError(f"{certificate[:80]!r} says no certificate", hint=hint)
    now = int(time.time())
    id_ = secrets.token_hex(6)
    secret = "" if certificate else f"{PREFIX}_{id_}_{secrets.token_urlsafe(32)}"
    hashed = hash_of(secret) if secret else ""
    expires = 0 if lifetime is None else now + int(lifetime)
    return Token(id_, name, hashed, tuple(grants), now, expires, 0, certificate, limits), secret


def hash_of(secret: str) -> str:
    """Secrets are 256 random bits: nobody can try them all, so a fast hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Tokens:
    """All of a file, as it was read; never changed."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self.all = tuple(tokens)
        self._by_id = {token.id: token for token in self.all}
        self._by_name = {token.name: token for token in self.all if not token.revoked}
        self.limits_messages = any(token.limits.message_bytes is not None for token in self.all)
        good = (token for token in self.all if not token.revoked)
        self._by_certificate = {token.certificate: token for token in good if token.certificate}

    def by_name(self, name: str) -> Token | None:
        """The one of that name that is not revoked."""
        return self._by_name.get(name)

    @property
    def certified(self) -> bool:
        """Whether a certificate may stand for a token."""
        return bool(self._by_certificate)

    def by_secret(self, secret: str) -> Token | None:
        """Whose it is, whatever its state. In a time that says nothing about any hash."""
        match = _SECRET.fullmatch(secret)
        token = None if match is None else self._by_id.get(match[1])
        known = token.hash if token is not None and token.hash else "0" * 64
        same = hmac.compare_digest(hash_of(secret), known)
        return token if same else None

    def by_certificate(self, names: Iterable[str]) -> Token | None:
        """names: of a verified certificate, as `Token.certificate` has them."""
        return next((found for name in names if (found := self._by_certificate.get(name))), None)


def load(path: str) -> Tokens:
    """None there, none known. Raises EnvironmentProblem with what to do."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return Tokens()
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the tokens in {path}: {error.strerror}") from None
    if mode & 0o077:
        raise EnvironmentProblem(f"others may read or write {path}", hint=f"chmod 600 {path}")
    if len(data) > MAX_FILE:
        raise EnvironmentProblem(f"{path} is larger than {MAX_FILE >> 20} MiB")
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            version = str(document["version"])[:20]
            raise EnvironmentProblem(f"{path} has version {version}, this program knows {VERSION}")
        return Tokens([_token(each) for each in document["tokens"]])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        hint = "make tokens with `buildgraph serve token create`, or put back a copy of the file"
        raise EnvironmentProblem(f"{path} is damaged: {type(error).__name__}: {str(error)[:80]}", hint=hint) from None


def save(path: str, tokens: Iterable[Token]) -> None:
    """All of it or nothing, readable by its owner alone. Raises EnvironmentProblem."""
    document = {"version": VERSION, "tokens": [_document(token) for token in tokens]}
    new = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(fd)
            if os.geteuid() == 0:  # for a server that runs as somebody else
                owner = os.stat(path if os.path.exists(path) else os.path.dirname(os.path.abspath(path)))
                os.fchown(fd, owner.st_uid, owner.st_gid)
        os.replace(new, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write the tokens to {path}: {error.strerror}") from None


def _document(token: Token) -> dict[str, Any]:
    grants = [{"scopes": sorted(grant.scopes), "namespaces": grant.pattern} for grant in token.grants]
    limits = {name: value for name, value in token.limits._asdict().items() if value is not None}
    return {**token._asdict(), "grants": grants, "limits": limits}


def _token(document: dict[str, Any]) -> Token:
    """Raises one of those that `load` names."""
    grants = [
        Grant(parse_scopes(",".join(each["scopes"])), check_pattern(str(each["namespaces"])))
        for each in document["grants"]
    ]
    limits = document.get("limits", {})
    return Token(
        id=str(document["id"]),
        name=str(document["name"]),
        hash=str(document["hash"]),
        grants=tuple(grants),
        created=int(document["created"]),
        expires=int(document["expires"]),
        revoked=int(document["revoked"]),
        certificate=str(document.get("certificate", "")),
        limits=TokenLimits(
            _optional(limits, "bytes_stored"), _rate(limits), _optional(limits, "message_bytes")
        ),
    )  # fmt: skip


def _optional(limits: dict[str, Any], name: str) -> int | None:
    value = limits.get(name)
    return None if value is None else int(value)


def _rate(limits: dict[str, Any]) -> float | None:
    value = limits.get("requests_per_second")
    return None if value is None else float(value)
