"""Condemned: how blobs leave the store while builds of other processes read it and write to it.

Removal has two halves. First one write transaction deletes records and notes each blob that no record names any more
in the table `condemned`, with the transaction's own number C. Later, `reclaim` removes condemned blobs, under these
rules:

1. Each open store is a *reader* (`cache.readers`). It was registered, with a lock that dies with its process, before
   it read anything, and then noted the number T of the last transaction committed until then. A record that named the
   blob was gone for it from the beginning if T ≥ C. So a blob may go once T ≥ C for all that live. (Transactions are
   numbered by LMDB for the life of the database. No clock is asked: clocks jump.)
2. The removal itself, also the unlink of a file, happens inside a write transaction that looks at `condemned` again.
   There is one write transaction at a time, of all processes.
3. Whoever publishes a blob, or a record that names one, takes it out of `condemned` in the same write transaction. If
   it is a file, the publisher looks there, with the lock held, whether the file still stands; else it links it again
   from its scratch file, which it has until it ends. A blob that a batch only `needs` must be there, or the batch
   fails; for a reader by rule 1 it is.

So a record never names a blob that is not there (I3), whatever is killed when: a kill between unlink and commit
leaves a condemned blob without a file, which the next `reclaim` forgets. A file whose record never came (a kill
between the two) is an orphan, condemned like all else by whoever finds it: its publisher, if it lives, is a reader
from before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from cache.blob_files import INLINE_LIMIT
from cache.digest import Digest
from cache.naming import NAMING, blobs_in
from cache.readers import Live, live_readers, sweep_readers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.blob_files import BlobFiles
    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View

CHUNK = 200
"""Files that one transaction unlinks at most: builds that want to write wait for it."""


class Reclaimed(NamedTuple):
    """bytes: that came back. blobs: how many. waiting: bytes that stay, until one of `holders` ends."""

    bytes: int = 0
    blobs: int = 0
    waiting: int = 0
    holders: tuple[Live, ...] = ()


def condemn_unnamed(view: View, candidates: set[str]) -> int:
    """Condemn those of the blobs that no record names; their bytes. In a transaction that writes.

    candidates: of `str(Digest)`; those that are named are taken out of it.
    """
    for table in NAMING:
        if not candidates:
            break
        for _, value in view.scan(table):
            candidates.difference_update(blobs_in(table, value))
    total = 0
    for blob in candidates:
        if view.get("condemned", blob) is None:
            view.put("condemned", blob, b"%d" % view.id)
            total += Digest.parse(blob).size
    return total


def take_back(view: View, digests: Iterable[str]) -> None:
    """These blobs are named again, or about to be. In a transaction that writes."""
    if view.count("condemned"):
        for digest in digests:
            view.delete("condemned", digest)


def first_missing(view: View, files: BlobFiles, digests: Iterable[Digest]) -> Digest | None:
    """The first of the blobs that is not there."""
    for digest in digests:
        there = view.blob(digest) is not None if digest.size <= INLINE_LIMIT else files.has(digest)
        if not there:
            return digest
    return None


def reclaim(store: LmdbStore, deadline: float | None = None) -> Reclaimed:
    """Remove what is condemned and out of everybody's reach. deadline: as `time.monotonic`. Raises StoreProblem."""
    with store.view() as view:
        if not view.count("condemned"):
            return Reclaimed()
    sweep_readers(store.directory)
    freed = removed = 0
    done = False
    while not done and (deadline is None or time.monotonic() < deadline):
        with store.transaction() as view:
            size, count, done = _reclaim_some(store, view)
        freed += size
        removed += count
    with store.view() as view:
        waiting = sum(Digest.parse(key).size for key, _ in view.scan("condemned"))
    holders = tuple(live_readers(store.directory, store.reader)) if waiting else ()
    return Reclaimed(freed, removed, waiting, holders)


def _reclaim_some(store: LmdbStore, view: View) -> tuple[int, int, bool]:
    """(bytes, blobs, whether nothing more can be done)."""
    oldest = min((each.transaction for each in live_readers(store.directory, store.reader)), default=view.id)
    free, files = [], 0
    done = True
    for key, value in view.scan("condemned"):
        if (int(value) if value.isdigit() else view.id) <= oldest:
            free.append(Digest.parse(key))
            files += free[-1].size > INLINE_LIMIT
            if files >= CHUNK:
                done = False
                break
    freed = 0
    for digest in free:
        if digest.size <= INLINE_LIMIT:
            freed += digest.size * view.delete_blob(digest.hash)
        else:
            freed += store.files.remove(digest.hash)
        view.delete("condemned", str(digest))
    return freed, len(free), done
