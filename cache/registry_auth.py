"""Authenticator: what one registry wants to see before it answers: nothing, a password, or a token."""

from __future__ import annotations

import base64
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from cache.document import Document
from cache.registry_errors import RegistryDenied, from_answer, login_hint
from cache.transport import MOST_ERROR_BODY, Transport, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.credentials import Credentials

DEFAULT_EXPIRY = 60
"""Seconds that a token is good for when its server does not say (docker's token specification)."""
EXPIRY_MARGIN = 10
"""Seconds before its end at which a token counts as expired: it travels, and clocks differ."""
MOST_ANSWER = 1 << 20
"""Bytes of a token server's answer; large tokens have 10 KB."""

_CHALLENGE = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)(?:\s+(?=[^\s,=]+\s*=)|\s*(?=,|$))")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Challenge(NamedTuple):
    """One way to authenticate that a server offers: `basic` or `bearer`, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """Read WWW-Authenticate headers (RFC 9110, 11.6.1), several challenges a header too; nonsense ends the reading."""
    found: list[Challenge] = []
    for header in headers:
        place = 0
        while place < len(header):
            parameter = _PARAMETER.match(header, place) if found else None
            if parameter and found:
                value = parameter[2] if parameter[2] is not None else parameter[3]
                found[-1].parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", value)
                place = parameter.end()
                continue
            scheme = _CHALLENGE.match(header, place)
            if not scheme:
                break
            found.append(Challenge(scheme[1].lower(), {}))
            place = scheme.end()
    return found


class Authenticator:
    """Holds the credentials and tokens for one registry; any number of threads may use it at once."""

    def __init__(
        self, transport: Transport, credentials: Credentials | Callable[[str], Credentials | None] | None
    ) -> None:
        """credentials: theirs, or a function that finds them by host, called once and only when the registry asks."""
        self._transport = transport
        self._credentials = credentials
        self._lock = threading.Lock()
        self._basic = ""
        self._bearer: Challenge | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    def holds(self, scopes: tuple[str, ...]) -> bool:
        """Whether a token for just these scopes is at hand."""
        with self._lock:
            return bool(self._known(scopes))

    def header(self, scopes: tuple[str, ...]) -> str:
        """The Authorization header for the next request; `""` as long as the registry has not asked for one."""
        with self._lock:
            if self._basic:
                return self._basic
            return self._known(scopes) or (self._fetch(self._bearer, scopes) if self._bearer else "")

    def answer(self, headers: Sequence[str], scopes: tuple[str, ...], refused: str, what: str) -> str:
        """The header for a second try after a 401 whose WWW-Authenticate said `headers`.

        refused: the header that was sent. RegistryDenied when there is nothing better to send.
        """
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(headers))}
        with self._lock:
            if (known := self._known(scopes) or self._basic) and known != refused:
                return known  # another thread was here while we waited
            if bearer := challenges.get("bearer"):
                self._bearer, self._basic = bearer, ""
                return self._fetch(bearer, scopes)
            credentials = self._find()
            if "basic" not in challenges or credentials is None or not credentials.username or self._basic:
                self._basic = ""
                said = "does not accept the stored login" if refused else "asks for a login"
                raise self._denied(what, said)
            self._basic = _basic(credentials)
            return self._basic

    def _known(self, scopes: tuple[str, ...]) -> str:
        token, until = self._tokens.get(scopes, ("", 0.0))
        return token if time.monotonic() < until else ""

    def _find(self) -> Credentials | None:
        if callable(self._credentials):
            self._credentials = self._credentials(self._transport.host)
        return self._credentials

    def _fetch(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        """Get a token from the realm (docker's token specification); scopes are ours, never the challenge's."""
        host = self._transport.host
        what = f"get a token for {host}"
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        credentials = self._find()
        self._check(realm, credentials, what)
        fields = [("service", service)] if service else []
        if credentials and credentials.identity_token:
            form = [
                *fields,
                ("grant_type", "refresh_token"),
                ("client_id", "buildgraph"),
                ("scope", " ".join(scopes)),
                ("refresh_token", credentials.identity_token),
            ]
            response = self._transport.send(
                "POST",
                realm,
                what,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
            )
        else:
            query = urlencode([*fields, *(("scope", scope) for scope in scopes)])
            response = self._transport.send(
                "GET",
                f"{realm}{'&' if '?' in realm else '?'}{query}",
                what,
                authorization=_basic(credentials) if credentials else "",
            )
        if response.status in (401, 403):
            response.close()
            raise self._denied(what, "does not accept the stored login" if credentials else "asks for a login")
        if response.status != 200:
            body = self._transport.read(response, MOST_ERROR_BODY, what)
            raise from_answer(what, response.status, response.headers, body, host=host, repository="")
        answer = Document.parse(
            self._transport.read(response, MOST_ANSWER, what), f"the answer of {host}'s token server", MOST_ANSWER
        )
        token = answer.text("token") or answer.text("access_token")
        if not _TOKEN.fullmatch(token):
            raise self._denied(what, "gave no usable token")
        seconds = answer.integer("expires_in") or DEFAULT_EXPIRY
        header = f"Bearer {token}"
        self._tokens[scopes] = header, time.monotonic() + max(EXPIRY_MARGIN, seconds - EXPIRY_MARGIN)
        return header

    def _check(self, realm: str, credentials: Credentials | None, what: str) -> None:
        try:
            parts = urlsplit(realm)
        except ValueError:
            raise self._denied(what, "names a token server that is no URL") from None
        if parts.scheme == "https" and parts.netloc:
            return
        # A registry elsewhere must not make us talk to a service of this machine, nor in clear.
        near = is_loopback(self._transport.address) and is_loopback(parts.netloc)
        if parts.scheme != "http" or (credentials and not near and not self._transport.insecure):
            raise self._denied(what, "names a token server without https, which gets no password")

    def _denied(self, what: str, reason: str) -> RegistryDenied:
        host = self._transport.host
        return RegistryDenied(
            f"cannot {what}: {host} {reason}",
            host=host,
            status=401,
            hint=f"check the name; if it is right, {login_hint(host)}",
        )


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
