"""How a registry fails: one exception a kind, with host, repository, status and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cache.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_DETAIL = 200
"""Characters of a registry's own words that go into our message."""


class RegistryError(RemoteError):
    """A registry failed or refused.

    host, repository: where (`docker.io`, `library/nginx`). status: of HTTP, 0 when no answer came.
    transient: whether the same request may succeed later. retry_after: the seconds that the registry asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        host: str,
        repository: str = "",
        status: int = 0,
        transient: bool = False,
        retry_after: float = 0.0,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.host = host
        self.repository = repository
        self.status = status
        self.transient = transient
        self.retry_after = retry_after


class RegistryUnreachable(RegistryError):
    """No usable answer came: name not found, refused, timed out, broken off, TLS not trusted."""


class RegistryDenied(RegistryError):
    """401 or 403: not logged in, or not allowed."""


class RegistryNotFound(RegistryError):
    """404: no such repository, tag or digest."""


def login_hint(host: str) -> str:
    return "log in with docker login" + ("" if host == "docker.io" else f" {host}")


def from_answer(
    what: str, status: int, headers: Mapping[str, str], body: bytes, *, host: str, repository: str
) -> RegistryError:
    """The exception for an answer that is not the wanted one; `what` completes «cannot …»."""
    detail = _detail(body)
    said = f": {detail}" if detail else ""
    if status == 401:
        return RegistryDenied(
            f"cannot {what}: {host} denies access{said}",
            host=host, repository=repository, status=status,
            hint=f"check the name; if it is right, {login_hint(host)}",
        )  # fmt: skip
    if status == 403:
        return RegistryDenied(
            f"cannot {what}: {host} does not allow it{said}",
            host=host, repository=repository, status=status,
            hint=f"{login_hint(host)} as someone who may",
        )  # fmt: skip
    if status == 404:
        return RegistryNotFound(
            f"cannot {what}: {host} does not have it{said}", host=host, repository=repository, status=status
        )
    if status == 429:
        return RegistryError(
            f"cannot {what}: {host} limits our requests{said}",
            host=host, repository=repository, status=status,
            transient=True, retry_after=_retry_after(headers),
            hint=f"wait, or {login_hint(host)} for a higher limit",
        )  # fmt: skip
    return RegistryError(
        f"cannot {what}: {host} answered {status}{said}",
        host=host, repository=repository, status=status,
        # 501 and 505 say that the server will never do it; all other 5xx, 408 and 425 are about this moment.
        transient=status in (408, 425) or (status >= 500 and status not in (501, 505)),
        retry_after=_retry_after(headers),
    )  # fmt: skip


def error_codes(body: bytes) -> frozenset[str]:
    """The codes of the specification in an answer's body (`BLOB_UNKNOWN`, `DIGEST_INVALID`, …)."""
    return frozenset(str(error.get("code")) for error in _errors(body))


def _errors(body: bytes) -> list[dict[str, object]]:
    try:
        errors = json.loads(body)["errors"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _detail(body: bytes) -> str:
    words = "; ".join(str(error.get("message") or error.get("code") or "") for error in _errors(body)[:3])
    return "".join(character if character.isprintable() else " " for character in words[:_MOST_DETAIL]).strip()


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from either form of the header; 0 when it is not there or makes no sense."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return 0.0
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    import email.utils
    import time

    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
