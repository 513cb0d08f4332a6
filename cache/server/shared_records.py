"""SharedRecords: what the members of a team tell each other, by namespace, kind and key, bounded in size and number."""

from __future__ import annotations

import heapq
import os
import threading
import zlib
from operator import itemgetter
from typing import TYPE_CHECKING

from cache.build_record import BuildRecord
from cache.server.limits import MAX_RECORD, MAX_RECORDS
from cache.server.refusal import invalid
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View
    from cache.store import Table

KINDS = ("preimages", "sources", "builds", "places", "forms")
MAX_KEY = 400
"""Bytes of a key: with namespace and kind it is one that LMDB takes."""
MAX_BUILD = 16 << 20
"""Bytes of an unpacked record of a build."""


def checked_kind(kind: str) -> str:
    """Raises Refused."""
    if kind not in KINDS:
        raise invalid(f"a kind of record is one of {', '.join(KINDS)}")
    return kind


class SharedRecords:
    """May be used by several threads at once."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        """Records below `NAMESPACE\\0KIND\\0`, once they were counted."""
        self.server_id = self._server_id()

    def _server_id(self) -> str:
        key = "\0server\0id"  # of a kind that no client can write
        self._store.commit(Batch())
        found = self._store.get("shared", key)
        if found is None:
            found = os.urandom(16).hex().encode()
            self._store.commit(Batch(records=(("shared", key, found),)))
        return found.decode("ascii", "replace")

    def put(self, namespace: str, records: Sequence[tuple[str, str, bytes]]) -> None:
        """(kind, key, value) each; all or nothing, durable on return. Raises Refused, StoreProblem."""
        for kind, key, value in records:
            _check(kind, key, value)
        with self._lock:
            changed: list[tuple[Table, str, bytes]] = []
            deleted: list[tuple[Table, str]] = []
            for kind in dict.fromkeys(kind for kind, _, _ in records):
                prefix = f"{namespace}\0{kind}\0"
                values = {prefix + key: value for of, key, value in records if of == kind}
                there = self._store.get_many("shared", values)
                count = self._count(prefix) + len(values) - len(there)
                gone = self._superfluous(prefix, kind, count - MAX_RECORDS, values)
                self._counts[prefix] = count - len(gone)
                changed += [("shared", key, value) for key, value in values.items()]
                deleted += [("shared", key) for key in gone]
            self._store.commit(Batch(records=tuple(changed), deleted=tuple(deleted)))

    def _count(self, prefix: str) -> int:
        known = self._counts.get(prefix)
        if known is None:
            with self._store.view() as view:
                known = sum(1 for _ in view.scan("shared", prefix))
        return known

    def _superfluous(self, prefix: str, kind: str, number: int, new: dict[str, bytes]) -> list[str]:
        """Keys of records that make room: the oldest builds; of other kinds, whose keys are hashes, any."""
        gone: list[str] = []
        if number <= 0:
            return gone
        at = prefix if kind == "builds" else prefix + os.urandom(2).hex()
        with self._store.view() as view:
            for start in (at, prefix):
                key = view.key_from("shared", start)
                while key is not None and key.startswith(prefix) and len(gone) < number:
                    if key not in new and key not in gone:
                        gone.append(key)
                    key = view.key_from("shared", f"{key}\0")
        return gone

    def find(self, namespace: str, kind: str, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        """(key, value) of those that exist."""
        prefix = f"{namespace}\0{kind}\0"
        found = self._store.get_many("shared", [prefix + key for key in keys])
        return [(key, found[prefix + key]) for key in keys if prefix + key in found]

    def newest(self, namespace: str, kind: str) -> Iterator[tuple[str, bytes]]:
        """(key, value), the last key first."""
        prefix = f"{namespace}\0{kind}\0"
        with self._store.view() as view:
            for key, value in view.scan_back("shared", prefix):
                yield key.removeprefix(prefix), value

    def newest_of(self, namespaces: Sequence[str], kind: str) -> Iterator[tuple[str, str, bytes]]:
        """(namespace, key, value) of all of them, the last key first."""
        with self._store.view() as view:
            yield from heapq.merge(
                *(_backwards(view, namespace, kind) for namespace in namespaces), key=itemgetter(1), reverse=True
            )


def _backwards(view: View, namespace: str, kind: str) -> Iterator[tuple[str, str, bytes]]:
    prefix = f"{namespace}\0{kind}\0"
    for key, value in view.scan_back("shared", prefix):
        yield namespace, key.removeprefix(prefix), value


def _check(kind: str, key: str, value: bytes) -> None:
    checked_kind(kind)
    if not key or "\0" in key or len(key.encode("utf-8", "surrogateescape")) > MAX_KEY:
        raise invalid(f"the key of a record has 1 to {MAX_KEY} bytes, none of them NUL")
    if len(value) > MAX_RECORD:
        raise invalid(f"a record has at most {MAX_RECORD} bytes, this one {len(value)}")
    if kind == "builds" and not _is_build(key, value):
        raise invalid("a record of a build is one that this version of buildgraph can read; update one of the two")


def _is_build(key: str, value: bytes) -> bool:
    """Whether it can be read, and does not unpack to more than anybody wants in memory."""
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(value, MAX_BUILD)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail and BuildRecord.parse(key, value) is not None


