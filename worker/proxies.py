"""Proxies: variables that every RUN gets without ARG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import CorruptBlob

if TYPE_CHECKING:
    from collections.abc import Mapping

PROXIES = frozenset(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (proxy, proxy.lower())
)
"""Arguments of these names are counted by no key and no history unless a stage declares them."""
MAX_PROXY = 4_000
"""Characters of one that somebody else gives."""


def checked_proxies(given: Mapping[str, str]) -> dict[str, str]:
    """No key counts these variables, so that they are proxies and nothing else. Raises CorruptBlob."""
    for name, value in given.items():
        if name not in PROXIES or not isinstance(value, str) or len(value) > MAX_PROXY or "\0" in value:
            raise CorruptBlob("a variable that no key counts is no proxy")
    return dict(given)
