"""ServerGc: keeps a server's store within its limits, in the background, and writes down what was used when."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cache.condemned import condemn_unnamed, reclaim
from cache.disk_usage import free_bytes
from cache.errors import BuildgraphError
from cache.server.holdings import take_holdings
from cache.server.leftovers import condemn_orphans, drop_chunks, drop_leftovers
from cache.server.shedding import SLACK, Demands, plan_shedding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.lmdb_view import View
    from cache.server.journal import Journal
    from cache.server.quotas import Quotas
    from cache.server.shedding import Shed
    from cache.server.shelf import Shelf
    from cache.store import Table

FLUSH_SECONDS = 5.0
"""How often last uses are written down; a crash forgets those since."""
COARSE_SECONDS = 600
"""A last use that is written down already is not written again for this long."""
LOOK_SECONDS = 60.0
"""How often the limits are looked at, beside the times when a write met one."""
REST_SECONDS, REST_SHARE = 5.0, 10
"""Between two looks, so long and so many times as long as the first one took: a limit that is met all the time, with
nothing that may go, must not be what the server is busy with."""
RUN_SECONDS = 30.0
"""For removing files; the rest is removed the next time."""
DAY = 86_400.0
SWEEP_SECONDS = 3600.0
"""How often blobs that nothing names are looked for: a second for 100,000 records."""
FLUSHED = 20_000
"""Records that one transaction changes at most."""
_MEMBER_USE = re.compile(rb'(\["[0-9a-f]{64}/[0-9]+",)([0-9]+)')
_ACTION_USE = re.compile(rb'("used_at":)([0-9]+)')
_USES: Final[tuple[tuple[Table, re.Pattern[bytes]], ...]] = (("members", _MEMBER_USE), ("actions", _ACTION_USE))
"""Where the last use stands in the records of a table."""


class Policy(NamedTuple):
    """Limits beside those of `Quotas`. min_free: bytes of the disk. unused_for: seconds."""

    min_free: int | None = None
    unused_for: float | None = None


class Collected(NamedTuple):
    """actions, blobs: how many went. freed: bytes that came back. short: bytes that limits still ask for."""

    actions: int
    blobs: int
    freed: int
    short: int
    rules: tuple[str, ...]


class GcMeter(Protocol):
    def cleaned(self, freed: int, actions: int, blobs: int, seconds: float) -> None: ...


class ServerGc:
    """One thread. `collect` may also be called by hand, when that does not run."""

    def __init__(self, shelf: Shelf, quotas: Quotas, policy: Policy, journal: Journal, meter: GcMeter) -> None:
        self._shelf = shelf
        self._store = shelf.store
        self._quotas = quotas
        self._policy = policy
        self._journal = journal
        self._meter = meter
        self._stop = threading.Event()
        self._wake = threading.Event()
        quotas.wake = self._wake.set
        self._next_look = self._next_tidy = self._next_sweep = self._eager_until = self._rested = 0.0
        self._thread = threading.Thread(target=self._run, name="server-gc", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is not written down yet is, before this returns."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._guarded(self.flush)

    def _run(self) -> None:
        while not self._stop.is_set():
            rest = self._rested - time.monotonic()
            if rest > 0:
                self._stop.wait(min(rest, FLUSH_SECONDS))
            else:
                self._wake.wait(FLUSH_SECONDS)
            if self._stop.is_set():
                return
            self._guarded(self.flush)
            if time.monotonic() >= self._rested:
                self._look_if_due()

    def _look_if_due(self) -> None:
        began = time.monotonic()
        if self._wake.is_set():
            self._wake.clear()
            # What met the limit is still on its way in.
            self._eager_until = began + LOOK_SECONDS
        if began >= self._next_look or began < self._eager_until:
            self._next_look = began + LOOK_SECONDS
            self._guarded(self._look)
            now = time.monotonic()
            self._rested = now + max(REST_SECONDS, REST_SHARE * (now - began))

    def _guarded(self, method: Callable[[], None]) -> None:
        try:
            method()
        except (BuildgraphError, OSError) as error:
            self._journal.write("error", source="gc", text=getattr(error, "message", str(error)))

    # last uses

    def flush(self) -> None:
        """Write last uses down. Raises StoreProblem."""
        blobs, actions = self._shelf.uses.drain()
        keys = [f"{namespace}\0{digest}" for namespace, digests in blobs.items() for digest in digests]
        now = int(time.time())
        for (table, pattern), used in zip(_USES, (keys, actions), strict=True):
            stale = self._stale(table, used, pattern, now)
            for start in range(0, len(stale), FLUSHED):
                with self._store.transaction() as view:
                    for key in stale[start : start + FLUSHED]:
                        row = view.get(table, key)
                        if row is not None:
                            view.put(table, key, pattern.sub(rb"\g<1>%d" % now, row, count=1))

    def _stale(self, table: Table, keys: Iterable[str], pattern: re.Pattern[bytes], now: int) -> list[str]:
        """Those whose last use was long ago."""
        found = []
        with self._store.view() as view:
            for raw, row in view.get_multi(table, [key.encode() for key in keys]).items():
                match = pattern.search(row)
                if match is not None and int(match[2]) < now - COARSE_SECONDS:
                    found.append(raw.decode())
        return sorted(found)

    # limits

    def _look(self) -> None:
        self._quotas.recount()
        now = time.monotonic()
        tidy = now >= self._next_tidy
        if tidy:
            self._next_tidy = now + DAY
        if self._over() or (tidy and self._policy.unused_for is not None):
            self.collect()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            self.sweep()
        if tidy:
            drop_leftovers(self._store)

    def sweep(self) -> int:
        """Remove what no record names; the bytes that came back. Raises StoreProblem."""
        if not condemn_orphans(self._store):
            return 0
        return reclaim(self._store, time.monotonic() + RUN_SECONDS).bytes

    def _over(self) -> bool:
        if self._need(1.0) > 0:
            return True
        for name, used in self._quotas.usage().items():
            limit = self._quotas.limit_of(name)
            if limit is not None and used.bytes > limit:
                return True
        return False

    def _need(self, slack: float) -> int:
        """Bytes that the store must give back to be within that part of its limits."""
        needs = [0]
        if self._quotas.max_used is not None:
            needs.append(self._quotas.total - int(self._quotas.max_used * slack))
        if self._policy.min_free is not None:
            needs.append(int(self._policy.min_free / slack) - free_bytes(self._store.directory))
        return max(needs)

    def collect(self) -> Collected:
        """Remove what is too much. Raises StoreProblem."""
        began = time.monotonic()
        self.flush()
        now = time.time()
        with self._store.view() as view:
            holdings = take_holdings(view)
        need = self._need(SLACK) if self._need(1.0) > 0 else 0
        since = None if self._policy.unused_for is None else now - self._policy.unused_for
        shed = plan_shedding(holdings, Demands(need, self._quotas.limit_of, since), now)
        scanned = now
        actions = blobs = 0
        if shed.actions or shed.blobs:
            with self._store.transaction() as view:
                actions, blobs = self._drop(view, shed, int(scanned))
        reclaimed = reclaim(self._store, time.monotonic() + RUN_SECONDS)
        self._quotas.recount()
        seconds = time.monotonic() - began
        self._meter.cleaned(reclaimed.bytes, actions, blobs, seconds)
        if actions or blobs or shed.short:
            self._journal.write(
                "cleaned", actions=actions, blobs=blobs, freed=reclaimed.bytes, waiting=reclaimed.waiting or None,
                short=shed.short or None, rules="; ".join(shed.rules), seconds=round(seconds, 3),
            )  # fmt: skip
        return Collected(actions, blobs, reclaimed.bytes, shed.short, shed.rules)

    def _drop(self, view: View, shed: Shed, scanned: int) -> tuple[int, int]:
        """Decided again with the write lock held: what was published or used meanwhile stays, and what it names."""
        used, used_actions = self._shelf.uses.drain()
        dropped = 0
        spared: set[tuple[str, str]] = set()
        for key in sorted(shed.actions):
            row = view.get("actions", key)
            if row is None:
                continue
            if key in used_actions or _newer(row, _ACTION_USE, scanned):
                namespace = key.partition("\0")[0]
                spared.update((namespace, digest) for digest in _blobs(row))
                continue
            dropped += view.delete("actions", key)
        candidates: set[str] = set()
        gone = 0
        for namespace, digest in sorted(shed.blobs - spared):
            row = view.get("members", f"{namespace}\0{digest}")
            # A use notes the blobs of a new result before that is published.
            if row is None or digest in used.get(namespace, ()) or _newer(row, _MEMBER_USE, scanned):
                continue
            gone += view.delete("members", f"{namespace}\0{digest}")
            candidates.add(digest)
        condemn_unnamed(view, candidates)
        drop_chunks(view, candidates)
        for namespace, digests in used.items():
            self._shelf.uses.touch(namespace, digests)
        for key in used_actions:
            self._shelf.uses.touch_action(key)
        return dropped, gone


def _newer(row: bytes, pattern: re.Pattern[bytes], scanned: int) -> bool:
    match = pattern.search(row)
    return match is not None and int(match[2]) >= scanned


def _blobs(row: bytes) -> list[str]:
    try:
        return [str(each) for each in json.loads(row)["blobs"]]
    except (ValueError, KeyError, TypeError):
        return []
