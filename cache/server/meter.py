"""Meter: what the services tell whoever counts. The one that keeps metrics stands elsewhere."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """May be called by several threads at once; must be quick and not fail."""

    def received(self, namespace: str, size: int) -> None:
        """Bytes of blobs that were written."""
        ...

    def sent(self, namespace: str, size: int) -> None:
        """Bytes of blobs that were read."""
        ...

    def asked(self, namespace: str, hits: int, misses: int) -> None:
        """Results of actions that were looked for."""
        ...


class NoMeter:
    """Counts nothing."""

    def received(self, namespace: str, size: int) -> None: ...

    def sent(self, namespace: str, size: int) -> None: ...

    def asked(self, namespace: str, hits: int, misses: int) -> None: ...
