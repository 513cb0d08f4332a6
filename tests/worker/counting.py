"""A context whose scans say which files they hash."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.store import Batch
from worker.context import ContextTree
from worker.ignore import IgnoreRules

if TYPE_CHECKING:
    from pathlib import Path

    from cache.lmdb_store import LmdbStore

OLD = time.time() - 3600


class Counting(ContextTree):
    """Notes which files it hashes."""

    def __init__(self, directory: Path, store: LmdbStore, ignored: tuple[str, ...] = ()) -> None:
        super().__init__(str(directory), IgnoreRules.from_patterns(ignored), store)
        self.hashed: list[str] = []

    def hash_file(self, path: str, size: int) -> str:
        self.hashed.append(path)
        return super().hash_file(path, size)


class Later(Counting):
    """A scan that takes place an hour later: nothing that exists now is racy."""

    def __init__(self, directory: Path, store: LmdbStore, ignored: tuple[str, ...] = ()) -> None:
        super().__init__(directory, store, ignored)
        self._started += 3600 * 10**9


def scan(tree: Counting, store: LmdbStore, path: str = "") -> str:
    """The digest, and its records are kept."""
    digest = tree.digest(path)
    store.commit(Batch(records=tuple(("stats", key, value) for key, value in tree.records())))
    return digest


def digest_of(store: LmdbStore, context: Path, ignored: tuple[str, ...] = (), path: str = "") -> str:
    return Counting(context, store, ignored).digest(path)
