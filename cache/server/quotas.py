"""Quotas: how much stands in each namespace and by each name, and who may store more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache.server.figures import Entry, Figures, Usage, count
from cache.server.hold import Hold
from cache.server.patterns import matches
from cache.server.refusal import Refused, exhausted, never_fits
from cache.size_text import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.lmdb_store import LmdbStore

BEYOND = 1.25
"""So much of a limit may be in use until the clean-up that it starts has made room; beyond that writes are refused,
but for the one that goes beyond the limit itself."""
RECOUNT_SECONDS = 5.0
"""Before somebody is refused all is counted again, but not more often than this."""
RECOUNT_SHARE = 10
"""Nor more often than so many times as long as it takes: it must not be what the server does all day."""
MAX_SHOWN = 1000
"""Namespaces that have figures of their own."""


class NamespaceLimit(NamedTuple):
    """Each namespace that the pattern means may have so many bytes."""

    pattern: str
    bytes: int


class Quotas:
    """May be used by several threads at once. What is stored is counted now and then, and added to between; what is
    on its way in counts besides, until it is known how that ended."""

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
        self._stored = Figures()
        self._coming = Figures()
        self._since: list[Entry] | None = None
        """What was stored since a count began; None if none runs."""
        self._next_count = 0.0
        self.recount()

    def recount(self) -> None:
        """Look at what belongs to whom: 1 s of a core for 300,000 blobs."""
        with self._counting:
            self._recount()

    def _recount(self) -> None:
        began = time.monotonic()
        with self._lock:
            self._since = []
        stored = count(self._store)
        with self._lock:
            for entry in self._since:
                stored.add(entry)
            self._since = None
            self._stored = stored
        now = time.monotonic()
        self._next_count = now + max(RECOUNT_SECONDS, RECOUNT_SHARE * (now - began))

    def usage(self) -> dict[str, Usage]:
        """What is stored, by namespace, the largest ones."""
        with self._lock:
            found = dict(self._stored.namespaces)
        largest = sorted(found, key=lambda name: -found[name].bytes)[:MAX_SHOWN]
        return {name: found[name] for name in largest}

    @property
    def total(self) -> int:
        """Bytes of the store, about, without what is still on its way in."""
        return self._stored.total

    def limit_of(self, namespace: str) -> int | None:
        return next((limit.bytes for limit in self.limits if matches(limit.pattern, namespace)), None)

    def take(self, name: str, namespace: str, size: int, limit: int | None) -> Hold:
        """So many bytes are about to be stored. limit: of what stands by that name.

        Raises Refused: RESOURCE_EXHAUSTED if it is worth waiting, else FAILED_PRECONDITION; with what to do.
        """
        return self._take(Entry(name, namespace, 1, size, size), limit)

    def take_over(self, namespace: str, blobs: int, size: int) -> Hold:
        """The same for blobs that the store has, and another namespace: they count in this one, too, but for nobody."""
        return self._take(Entry("", namespace, blobs, size, 0), None)

    def _take(self, entry: Entry, limit: int | None) -> Hold:
        problem = self._reserve(entry, limit)
        if problem is not None and time.monotonic() >= self._next_count:
            with self._counting:
                if time.monotonic() >= self._next_count:
                    self._recount()
            problem = self._reserve(entry, limit)
        if problem is not None:
            raise problem
        return Hold(lambda stored: self._settle(entry, stored=stored))

    def _reserve(self, entry: Entry, limit: int | None) -> Refused | None:
        """Why not; None if it counts as coming from now on."""
        with self._lock:
            problem = self._problem(entry, limit)
            if problem is None:
                self._coming.add(entry)
        return problem

    def _settle(self, entry: Entry, *, stored: bool) -> None:
        with self._lock:
            self._coming.add(entry, -1)
            if stored:
                self._stored.add(entry)
                if self._since is not None:
                    self._since.append(entry)

    def _problem(self, entry: Entry, limit: int | None) -> Refused | None:
        """Wakes the clean-up."""
        stored, coming, size = self._stored, self._coming, entry.bytes
        if limit is not None:
            mine, mine_coming = stored.bytes_by(entry.name), coming.bytes_by(entry.name)
            if mine + mine_coming + size > limit:
                text = f"{entry.name} has stored {_more(mine, limit, mine_coming, size)}"
                if mine + size > limit:
                    return never_fits(f"{text}; ask whoever runs this server for more")
                return exhausted(f"{text}; try again when those are there")
        allowed = self.limit_of(entry.namespace)
        if allowed is not None:
            where = f"namespace {entry.namespace!r}" if entry.namespace else "the default namespace"
            there, there_coming = stored.bytes_in(entry.namespace), coming.bytes_in(entry.namespace)
            problem = self._full(where, there, there_coming, size, allowed)
            if problem is not None:
                return problem
        if self.max_used is not None and entry.total:
            return self._full("the server's store", stored.total, coming.total, entry.total, self.max_used)
        return None

    def _full(self, where: str, stored: int, coming: int, size: int, allowed: int) -> Refused | None:
        if size > allowed:
            text = f"{where} may have {bytes_text(allowed)}; {bytes_text(size)} more never fit"
            return never_fits(f"{text}; ask whoever runs this server for more")
        if stored + coming + size > allowed:
            self.wake()
        # Within the limit nothing is cleaned up: a large blob that was refused then would be refused for ever.
        if stored + coming > allowed and stored + coming + size > allowed * BEYOND:
            text = f"{where} is full: {_more(stored, allowed, coming, size)}"
            return exhausted(f"{text}; it is being cleaned up, try again in a minute")
        return None


def _more(stored: int, allowed: int, coming: int, size: int) -> str:
    on_the_way = f", and {bytes_text(coming)} are on their way" if coming else ""
    return f"{bytes_text(stored)} of {bytes_text(allowed)}{on_the_way}; {bytes_text(size)} more do not fit"
