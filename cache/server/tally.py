"""Tally: how many lookups a server answered, by hour and namespace, kept over restarts for whoever looks back."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cache import encoding
from cache.errors import StoreProblem
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache.lmdb_store import LmdbStore
    from cache.server.meter import Meter

HOUR = 3600
KEPT_HOURS = 24 * 31
WRITE_SECONDS = 20.0
"""How often what was counted is written: so much is lost by a crash."""
MAX_NAMESPACES = 200
"""That are counted apart within an hour; all others count as none at all, which a page shows to nobody."""
PREFIX = "\0server\0hours\0"
"""In the table `shared`; no client can write below it."""


class Tally:
    """A `Meter` in front of another one. May be used by several threads at once."""

    def __init__(self, store: LmdbStore, meter: Meter, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._meter = meter
        self._clock = clock
        self._lock = threading.Lock()
        self._hours: dict[int, dict[str, list[int]]] = {}
        """Hour → namespace → hits, misses."""
        self._changed: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="tally", daemon=True)
        with store.view() as view:
            for key, value in view.scan("shared", PREFIX):
                self._take(key.removeprefix(PREFIX), value)

    def _take(self, hour: str, value: bytes) -> None:
        try:
            counts = {str(name): [int(hits), int(misses)] for name, (hits, misses) in encoding.parse(value).items()}
            self._hours[int(hour)] = counts
        except encoding.UNREADABLE:
            pass

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """And write what is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.write()

    # a Meter

    def received(self, namespace: str, size: int) -> None:
        self._meter.received(namespace, size)

    def sent(self, namespace: str, size: int) -> None:
        self._meter.sent(namespace, size)

    def asked(self, namespace: str, hits: int, misses: int) -> None:
        self._meter.asked(namespace, hits, misses)
        hour = int(self._clock() // HOUR)
        with self._lock:
            counts = self._hours.setdefault(hour, {})
            count = counts.get(namespace)
            if count is None:
                if len(counts) >= MAX_NAMESPACES:
                    return
                count = counts[namespace] = [0, 0]
            count[0] += hits
            count[1] += misses
            self._changed.add(hour)

    # what was counted

    def hours(self, may_see: Callable[[str], bool]) -> Mapping[int, tuple[int, int]]:
        """Hour since the epoch → hits, misses, in the namespaces that somebody may see."""
        with self._lock:
            rows = [
                (hour, name, hits, misses)
                for hour, counts in self._hours.items()
                for name, (hits, misses) in counts.items()
            ]
        seen = {name for name in {row[1] for row in rows} if may_see(name)}
        found: dict[int, tuple[int, int]] = {}
        for hour, name, hits, misses in rows:
            if name in seen:
                known = found.get(hour, (0, 0))
                found[hour] = (known[0] + hits, known[1] + misses)
        return found

    # writing

    def _loop(self) -> None:
        while not self._stop.wait(WRITE_SECONDS):
            self.write()

    def write(self) -> None:
        """What changed since the last time. Fails silently: who serves notices a store that cannot be written."""
        oldest = int(self._clock() // HOUR) - KEPT_HOURS
        with self._lock:
            rows = {hour: encoding.canonical(self._hours[hour]) for hour in self._changed if hour in self._hours}
            self._changed.clear()
            gone = [hour for hour in self._hours if hour < oldest]
            for hour in gone:
                del self._hours[hour]
        if not rows and not gone:
            return
        try:
            self._store.commit(Batch(
                records=tuple(("shared", f"{PREFIX}{hour}", value) for hour, value in rows.items()),
                deleted=tuple(("shared", f"{PREFIX}{hour}") for hour in gone),
            ))  # fmt: skip
        except StoreProblem:
            with self._lock:
                self._changed |= rows.keys()
