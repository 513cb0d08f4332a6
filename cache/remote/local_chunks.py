"""LocalChunks: which chunks the local store's blobs are made of, so that a blob that changed a little moves little."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from blake3 import blake3

from cache import chunks, encoding
from cache.errors import StoreProblem
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cache.digest import Digest
    from cache.lmdb_store import LmdbStore
    from cache.store import Table

MAX_RANGES = 400_000
"""Chunks that are remembered: 200 GB of layers. Beyond that all are forgotten, and learnt again as layers come."""


class LocalChunks:
    """The tables `chunks` and `ranges` of the local store, in the server's form. All methods may be called from
    several threads. A record may name a blob that is gone: what is read is checked."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    def of(self, blob: Digest) -> list[str]:
        """The chunks of a blob of the store, in order, cut if nobody did yet; 1.5 GB/s. Raises StoreProblem."""
        record = self._store.get("chunks", str(blob))
        if record is not None:
            with contextlib.suppress(*encoding.UNREADABLE):
                return [str(name) for name in encoding.parse(record)["blake3"]]
        found = [str(chunk.digest) for chunk in chunks.cut(self._store.blob_path(blob))]
        self.remember(blob, found)
        return found

    def remember(self, blob: Digest, names: Sequence[str]) -> None:
        """names: its chunks in order."""
        rows: list[tuple[Table, str, bytes]] = [("chunks", str(blob), encoding.canonical({"blake3": list(names)}))]
        offset = 0
        for name in names:
            rows.append(("ranges", name, encoding.canonical([[str(blob), offset]])))
            offset += _size(name)
        self._store.submit(Batch(records=tuple(rows)))

    def find(self, names: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Chunk → (blob, offset) of those that a blob of the store may have."""
        found: dict[str, tuple[str, int]] = {}
        for name, record in self._store.get_many("ranges", set(names)).items():
            with contextlib.suppress(*encoding.UNREADABLE):
                blob, offset = encoding.parse(record)[0]
                found[name] = str(blob), int(offset)
        return found

    def read(self, name: str, place: tuple[str, int]) -> bytes | None:
        """The chunk's bytes; None if they are not there any more."""
        from cache.digest import Digest

        try:
            with open(self._store.blob_path(Digest.parse(place[0])), "rb") as file:
                data = os.pread(file.fileno(), _size(name), place[1])
        except (OSError, ValueError, StoreProblem):
            return None
        return data if blake3(data).hexdigest() == name[:64] else None


def trim(store: LmdbStore) -> None:
    """Forget all once there are too many."""
    with store.view() as view:
        if view.count("ranges") <= MAX_RANGES:
            return
    with store.transaction() as view:
        for table in ("chunks", "ranges"):
            for key in [key for key, _ in view.scan(table)]:
                view.delete(table, key)


def _size(name: str) -> int:
    return int(name[65:])
