"""Cordons: the names of workers that are to take nothing new, kept over restarts of the server."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from cache.store import Batch
from worker.fleet.limits import MAX_WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.lmdb_store import LmdbStore
    from worker.fleet.desk import Desk

RECORD = "\0fleet\0cordoned"
"""The record of `shared`, of a kind that no client can write, with the names."""


class Cordons:
    """The names themselves are the desk's. `note` and then, without the desk's lock, `keep`."""

    def __init__(self, desk: Desk, store: LmdbStore) -> None:
        self._desk = desk
        self._store = store
        self._keeping = threading.Lock()
        """One record is written after the other, so that the last one is the newest."""
        self._kept = store.get("shared", RECORD) or _record([])
        desk.cordoned.update(_names(self._kept))

    def note(self, name: str, *, off: bool = False) -> None:
        """It takes nothing new, whenever it joins, until somebody says otherwise. The desk's lock is held."""
        names = self._desk.cordoned
        if off:
            names.discard(name)
        elif len(names) < MAX_WORKERS:
            names.add(name)

    def keep(self) -> None:
        """What was noted is durable on return. Raises StoreProblem."""
        with self._keeping:
            with self._desk.lock:
                record = _record(self._desk.cordoned)
            if record != self._kept:
                self._store.commit(Batch(records=(("shared", RECORD, record),)))
                self._kept = record


def _record(names: Iterable[str]) -> bytes:
    return json.dumps(sorted(names)).encode()


def _names(record: bytes) -> list[str]:
    try:
        return [str(name) for name in json.loads(record)]
    except ValueError:
        return []
