"""Figures: how many bytes belong to whom, as they are counted from a store, or added up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cache.blob_files import INLINE_LIMIT

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore

_ROW = re.compile(rb'\["[0-9a-f]{64}/([0-9]+)",([0-9]+),([0-9]+),"(.*)"\]', re.DOTALL)


class Usage(NamedTuple):
    """blobs: how many. bytes: of these; what several namespaces have stands in each."""

    blobs: int = 0
    bytes: int = 0


class Entry(NamedTuple):
    """Bytes of one request. name: who put them, "" for nobody. total: of these, those that the store has not yet."""

    name: str
    namespace: str
    blobs: int
    bytes: int
    total: int


class Figures:
    """For one thread at a time. names: bytes by who put them. total: bytes of the store, about."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Usage] = {}
        self.names: dict[str, int] = {}
        self.total = 0

    def bytes_in(self, namespace: str) -> int:
        return self.namespaces.get(namespace, _NONE).bytes

    def bytes_by(self, name: str) -> int:
        return self.names.get(name, 0)

    def add(self, entry: Entry, sign: int = 1) -> None:
        """sign: -1 takes it away again."""
        used = self.namespaces.get(entry.namespace, _NONE)
        left = Usage(used.blobs + sign * entry.blobs, used.bytes + sign * entry.bytes)
        self.namespaces[entry.namespace] = left
        if left == _NONE:
            del self.namespaces[entry.namespace]
        if entry.name:
            self.names[entry.name] = self.bytes_by(entry.name) + sign * entry.bytes
            if not self.names[entry.name]:
                del self.names[entry.name]
        self.total += sign * entry.total


_NONE = Usage()


def count(store: LmdbStore) -> Figures:
    """Look at what belongs to whom: 1 s of a core for 300,000 blobs."""
    namespaces: dict[str, list[int]] = {}
    names: dict[bytes, int] = {}
    unique: dict[str, int] = {}
    with store.view() as view:
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
    found = Figures()
    found.namespaces = {name: Usage(*used) for name, used in namespaces.items()}
    found.names = {name.decode("utf-8", "replace"): size for name, size in names.items() if name}
    # Small blobs stand among the records.
    found.total = records + sum(size for size in unique.values() if size > INLINE_LIMIT)
    return found
