"""The ports of EXPOSE: `80`, `80/udp`, `8000-8010/tcp`, and the old `ip:host:container`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535


def normalise_ports(words: Iterable[str]) -> list[str]:
    """`port/protocol` for every port of the words, ranges expanded, sorted by number, each once.

    Only the container's part of `ip:host:container` counts. ValueError for what is no port.
    """
    ports: set[tuple[int, str]] = set()
    for word in words:
        spec, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in _PROTOCOLS:
            raise ValueError(f"{word}: the protocol of a port is tcp, udp or sctp, not {protocol}")
        host, _, container = spec.rpartition(":")
        first, last = _range(container, word)
        published = host.rpartition(":")[2]
        if published:
            low, high = _range(published, word)
            if high - low != last - first and last != first:
                raise ValueError(f"{word}: the ranges of host and container ports differ in length")
        ports.update((port, protocol) for port in range(first, last + 1))
    return [f"{port}/{protocol}" for port, protocol in sorted(ports)]


def _range(text: str, word: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _port(first, word)
    high = _port(last, word) if dash else low
    if high < low:
        raise ValueError(f"{word}: the range of ports ends before it starts")
    return low, high


def _port(text: str, word: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > _MAX_PORT:
        raise ValueError(f"{word or 'an empty word'} is no port such as 80, 80/udp or 8000-8010")
    return int(text)
