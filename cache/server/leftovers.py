"""Leftovers: records about blobs that are gone from a server's store: their chunks, ranges and other names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cache import encoding
from cache.blob_files import INLINE_LIMIT
from cache.condemned import condemn_unnamed
from cache.digest import Digest
from cache.prune import find_orphans

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.lmdb_store import LmdbStore
    from cache.lmdb_view import View

SOME = 5000
"""Records that one transaction looks at."""


def drop_chunks(view: View, blobs: Iterable[str]) -> None:
    """Forget how these blobs were cut. In a transaction that writes."""
    for blob in blobs:
        record = view.get("chunks", blob)
        if record is None:
            continue
        view.delete("chunks", blob)
        try:
            parts = [str(part) for part in encoding.parse(record)["blake3"]]
        except encoding.UNREADABLE:
            continue
        for part in dict.fromkeys(parts):
            _drop_owner(view, part, blob)


def _drop_owner(view: View, part: str, blob: str) -> None:
    row = view.get("ranges", part)
    if row is None:
        return
    try:
        owners = [each for each in json.loads(row) if each[0] != blob]
    except (ValueError, TypeError, IndexError):
        owners = []
    if owners:
        view.put("ranges", part, encoding.canonical(owners))
    else:
        view.delete("ranges", part)


def condemn_orphans(store: LmdbStore) -> int:
    """Condemn blobs that no record names: chunks that were spliced into a blob, files that a kill left behind; how
    many. Raises StoreProblem."""
    orphans = find_orphans(store)
    if orphans:
        with store.transaction() as view:
            condemn_unnamed(view, orphans)
    return len(orphans)


def drop_leftovers(store: LmdbStore) -> int:
    """Drop other names of what is gone; how many. Raises StoreProblem."""
    dropped = 0
    with store.view() as view:
        gone = [key for key, row in view.scan("aliases") if not _is_there(store, view, row)]
    for start in range(0, len(gone), SOME):
        with store.transaction() as view:
            for key in gone[start : start + SOME]:
                row = view.get("aliases", key)
                if row is not None and not _is_there(store, view, row):
                    dropped += view.delete("aliases", key)
    return dropped


def _is_there(store: LmdbStore, view: View, row: bytes) -> bool:
    text = row[1:-1].decode("ascii", "replace")
    try:
        digest = Digest.parse(text)
    except ValueError:
        return False
    if view.get("ranges", text) is not None:
        return True
    return view.blob(digest) is not None if digest.size <= INLINE_LIMIT else store.files.has(digest)
