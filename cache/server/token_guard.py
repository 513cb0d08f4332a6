"""TokenGuard: lets in whoever has a token, or a certificate that stands for one."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import grpc

from cache.errors import EnvironmentProblem
from cache.server import tokens
from cache.server.access import Caller, Scope
from cache.server.calls import CALL
from cache.server.patterns import pattern_text
from cache.server.refusal import Refused, exhausted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cache.server.hold import Hold
    from cache.server.journal import Journal
    from cache.server.quotas import Quotas

LOOK_SECONDS = 1.0
"""How soon a change of the file counts, a revocation above all."""
BURST_SECONDS = 2.0
"""A caller may save up so many seconds of its rate."""
HEADER = "authorization"


class TokenGuard:
    """A `Guard`. Reads the file of tokens again when it changes."""

    def __init__(self, path: str, anonymous: Collection[Scope], quotas: Quotas, journal: Journal) -> None:
        """path: "" for no tokens. anonymous: what those may do who show nothing. Raises EnvironmentProblem."""
        self._path = path
        self._anonymous = Caller("anonymous", lambda scope, _namespace: scope in anonymous)
        self._open = bool(anonymous)
        self._quotas = quotas
        self._journal = journal
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._stamp = _stamp(path)
        self._tokens = tokens.load(path) if path else tokens.Tokens()
        self._spent: dict[str, tuple[float, float]] = {}
        """Token's id → (requests that it may make at once, when that was)."""

    def identify(self, context: grpc.ServicerContext) -> Caller:
        return self._caller(self._who(context))

    def admit(self, context: grpc.ServicerContext, scope: Scope, namespace: str) -> Caller:
        CALL.scope, CALL.namespace = scope, namespace
        token = self._who(context)
        caller = self._caller(token)
        if token is not None and token.limits.requests_per_second is not None:
            self._count(token, token.limits.requests_per_second)
        if not caller.may(scope, namespace):
            where = f"namespace {namespace!r}" if namespace else "the default namespace"
            if token is None:
                text = f"nobody may {scope} in {where} without a token; set BUILDGRAPH_TOKEN"
            else:
                has = f"its token has {_granted(token.grants)}"
                text = f"{token.name} may not {scope} in {where}; {has}; ask whoever runs this server for more"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, text)
        return caller

    def accept(self, caller: Caller, namespace: str, size: int) -> Hold:
        token = self._tokens.by_name(caller.name)
        limit = None if token is None else token.limits.bytes_stored
        return self._quotas.take(caller.name, namespace, size, limit)

    def take_over(self, namespace: str, blobs: int, size: int) -> Hold:
        return self._quotas.take_over(namespace, blobs, size)

    def caller_of(self, secret: str) -> Caller | None:
        """Whoever a token belongs to, if it is good; for doors other than gRPC's."""
        self._look()
        token = self._tokens.by_secret(secret) or self._just_made(secret)
        return None if token is None or token.state(time.time()) else self._caller(token)

    @property
    def anonymous(self) -> Caller | None:
        """What those may do who show nothing, if that is anything."""
        return self._anonymous if self._open else None

    def message_limit(self, context: grpc.ServicerContext) -> int | None:
        """Bytes of one message that the caller may send; None for what the server takes from everybody."""
        if not self._tokens.limits_messages:
            return None
        try:
            token = self._who(context)
        except Refused:
            return None  # the method itself says so
        return None if token is None else token.limits.message_bytes

    # who

    def _who(self, context: grpc.ServicerContext) -> tokens.Token | None:
        """None for nobody in particular. Raises Refused: UNAUTHENTICATED."""
        self._look()
        header = next((str(value) for key, value in context.invocation_metadata() if key == HEADER), None)
        if header is not None:
            kind, _, secret = header.partition(" ")
            if kind.lower() != "bearer" or not secret:
                raise _unknown("the authorization is no bearer token; send `authorization: Bearer TOKEN`")
            token = self._tokens.by_secret(secret.strip()) or self._just_made(secret.strip())
            if token is None:
                raise _unknown("the token is not known here; ask whoever runs this server for one")
        else:
            token = self._by_certificate(context)
            if token is None:
                if not self._open:
                    how = "set BUILDGRAPH_TOKEN, or send `authorization: Bearer TOKEN`"
                    raise _unknown(f"this server wants a token; {how}")
                CALL.who = self._anonymous.name
                return None
        CALL.who = token.name
        state = token.state(time.time())
        if state:
            raise _unknown(f"the token of {token.name} is {state}; ask whoever runs this server for a new one")
        return token

    def _by_certificate(self, context: grpc.ServicerContext) -> tokens.Token | None:
        if not self._tokens.certified:
            return None
        known: Mapping[str, Iterable[bytes]] = context.auth_context()  # type: ignore[assignment]  # bytes they are
        names = [f"CN={each.decode('utf-8', 'replace')}" for each in known.get("x509_common_name", ())]
        names += [f"SAN={each.decode('utf-8', 'replace')}" for each in known.get("x509_subject_alternative_name", ())]
        return self._tokens.by_certificate(names)

    def _caller(self, token: tokens.Token | None) -> Caller:
        if token is None:
            return self._anonymous
        patterns = tuple(grant.pattern for grant in token.grants)
        return Caller(token.name, token.may, patterns, token.limits.message_bytes)

    # how often

    def _count(self, token: tokens.Token, rate: float) -> None:
        """Raises Refused: RESOURCE_EXHAUSTED."""
        burst = max(1.0, rate * BURST_SECONDS)
        now = time.monotonic()
        with self._lock:
            left, since = self._spent.get(token.id, (burst, now))
            left = min(burst, left + (now - since) * rate)
            self._spent[token.id] = (left - 1 if left >= 1 else left), now
        if left < 1:
            what = f"{token.name} may make {rate:g} requests a second"
            raise exhausted(f"{what}; wait {1 / rate:.2g} s, or ask in batches")

    # the file

    def _just_made(self, secret: str) -> tokens.Token | None:
        """A token that was made since the last look: whoever makes one uses it at once."""
        self._look(at_once=True)
        return self._tokens.by_secret(secret)

    def _look(self, *, at_once: bool = False) -> None:
        """Read the file again if it changed."""
        now = time.monotonic()
        if not self._path or (now < self._next_look and not at_once):
            return
        with self._lock:
            if now < self._next_look and not at_once:
                return
            self._next_look = now + LOOK_SECONDS
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._tokens = tokens.load(self._path)
            except EnvironmentProblem as problem:
                # Those that were good stay so: a slip of whoever edits the file must not stop a whole team.
                self._journal.write("error", text=f"{problem.message}; the tokens that were read before stay in force")
                return
            self._journal.write("tokens", count=len(self._tokens.all), text="read again")


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode


def _unknown(text: str) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, text)


def _granted(grants: Iterable[tokens.Grant]) -> str:
    texts = [f"{grant.scope_text} in {pattern_text(grant.pattern)}" for grant in grants]
    return " and ".join(texts) or "no rights"
