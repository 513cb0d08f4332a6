"""Uses: which blobs and results were used since the last look, kept in memory until somebody writes it down."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PENDING = 1_000_000
"""Names that are kept at most, 150 MB; if nobody collects them, later ones are not noted."""


class Uses:
    """May be used by several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, set[str]] = {}
        self._actions: set[str] = set()

    def touch(self, namespace: str, digests: Iterable[str]) -> None:
        """These blobs, named by BLAKE3, were asked for or read."""
        with self._lock:
            noted = self._blobs.setdefault(namespace, set())
            if len(noted) < MAX_PENDING:
                noted.update(digests)

    def touch_action(self, key: str) -> None:
        """This record of `actions` was used."""
        with self._lock:
            if len(self._actions) < MAX_PENDING:
                self._actions.add(key)

    def drain(self) -> tuple[dict[str, set[str]], set[str]]:
        """(namespace → blobs, keys of `actions`) since the last call."""
        with self._lock:
            drained = self._blobs, self._actions
            self._blobs, self._actions = {}, set()
        return drained
