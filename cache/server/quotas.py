"""Quotas: how much stands in each namespace and by each name, and who may store more."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.blob_files import INLINE_LIMIT
from cache.server.patterns import matches
from cache.server.refusal import exhausted
from cache.size_text import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.lmdb_store import LmdbStore

BEYOND = 1.25
"""So much of a limit may be in use until the clean-up that it starts has made room; beyond that writes are refused."""
RECOUNT_SECONDS = 5.0
"""Before somebody is refused all is counted again, but not more often than this."""
MAX_SHOWN = 1000
"""Namespaces that have figures of their own."""
_ROW = re.compile(rb'\["[0-9a-f]{64}/([0-9]+)",([0-9]+),([0-9]+),"(.*)"\]', re.DOTALL)


class NamespaceLimit(NamedTuple):
    """Each namespace that the pattern means may have so many bytes."""

    pattern: str
    bytes: int


class Usage(NamedTuple):
    """blobs: how many. bytes: of these; what several namespaces have stands in each."""

    blobs: int = 0
    bytes: int = 0


class Quotas:
    """May be used by several threads at once. Figures are counted from the store now and then, and added to between."""

    def __init__(
        self, store: LmdbStore, limits: Sequence[NamespaceLimit] = (), max_used: int | None = None
    ) -> None:
        """limits: the first that fits a namespace counts. max_used: bytes of the whole store."""
        self._store = store
        self.limits = tuple(limits)
        self.max_used = max_used
        self.wake: Callable[[], None] = lambda: None
        """Called when a limit was reached: there is something to clean up."""
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._namespaces: dict[str, Usage] = {}
        self._names: dict[str, int] = {}
        self._total = 0
        self._counted = 0.0
        self.recount()

    def recount(self) -> None:
        """Look at what belongs to whom: 1 s of a core for 300,000 blobs."""
        namespaces: dict[str, list[int]] = {}
        names: dict[bytes, int] = {}
        unique: dict[str, int] = {}
        with self._store.view() as view:
            for key, row in view.scan("members"):
                match = _ROW.fullmatch(row)
                if match is None:
                    continue
                namespace, _, digest = key.partition("\0")
                size = int(match[1])
                used = namespaces.setdefault(namespace, [0, 0])
                used[0] += 1
                used[1] += size
                names[match[4]] = names.get(match[4], 0) + size
                unique[digest] = size
            records = view.pages_in_use()
        # Small blobs stand among the records.
        total = records + sum(size for size in unique.values() if size > INLINE_LIMIT)
        with self._lock:
            self._namespaces = {name: Usage(*used) for name, used in namespaces.items()}
            self._names = {name.decode("utf-8", "replace"): size for name, size in names.items()}
            self._total = total
            self._counted = time.monotonic()

    def usage(self) -> dict[str, Usage]:
        """By namespace, the largest ones."""
        with self._lock:
            found = dict(self._namespaces)
        largest = sorted(found, key=lambda name: -found[name].bytes)[:MAX_SHOWN]
        return {name: found[name] for name in largest}

    @property
    def total(self) -> int:
        """Bytes of the store, about."""
        return self._total

    def limit_of(self, namespace: str) -> int | None:
        return next((limit.bytes for limit in self.limits if matches(limit.pattern, namespace)), None)

    def take(self, name: str, namespace: str, size: int, limit: int | None) -> None:
        """So many bytes are about to be stored. limit: of what stands by that name.

        Raises Refused: RESOURCE_EXHAUSTED with what to do.
        """
        problem = self._problem(name, namespace, size, limit)
        if problem and time.monotonic() - self._counted > RECOUNT_SECONDS:
            with self._counting:
                if time.monotonic() - self._counted > RECOUNT_SECONDS:
                    self.recount()
            problem = self._problem(name, namespace, size, limit)
        if problem:
            raise exhausted(problem)
        with self._lock:
            used = self._namespaces.get(namespace, Usage())
            self._namespaces[namespace] = Usage(used.blobs + 1, used.bytes + size)
            self._names[name] = self._names.get(name, 0) + size
            self._total += size

    def _problem(self, name: str, namespace: str, size: int, limit: int | None) -> str:
        """Why not, "" if so. Wakes the clean-up."""
        with self._lock:
            mine = self._names.get(name, 0) + size
            there = self._namespaces.get(namespace, Usage()).bytes + size
            total = self._total + size
        if limit is not None and mine > limit:
            what = f"{name} has stored {bytes_text(mine - size)} of the {bytes_text(limit)} that it may"
            return f"{what}; ask whoever runs this server for more, or wait until what is old was cleaned up"
        allowed = self.limit_of(namespace)
        if allowed is not None and there > allowed:
            self.wake()
            if there > allowed * BEYOND or size > allowed:
                where = f"namespace {namespace!r}" if namespace else "the default namespace"
                return f"{where} is full ({bytes_text(allowed)}); it is being cleaned up, try again in a minute"
        if self.max_used is not None and total > self.max_used:
            self.wake()
            if total > self.max_used * BEYOND or size > self.max_used:
                what = f"the server's store is full ({bytes_text(self.max_used)})"
                return f"{what}; it is being cleaned up, try again in a minute"
        return ""
