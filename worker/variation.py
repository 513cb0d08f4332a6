"""Variation: whether an action that was executed once more said something else, and which paths differed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cache import encoding
from cache.errors import StoreProblem
from cache.result import MAX_VARIES, Result

if TYPE_CHECKING:
    from cache.index import Index
    from cache.result import Layer
    from cache.store import Store
    from worker.library import LayerLibrary

UNKNOWN = "(its earlier layer is gone, so what differed is not known)"
"""Stands for the paths where only the content of the earlier layer is remembered."""


def variation(store: Store, library: LayerLibrary, key: str, layer: Layer) -> tuple[str, ...]:
    """Paths in which the layer differs from the one that the action of this key made before, MAX_VARIES at most.

    Of an action that was seen to vary once, what is known of it, also if this time it did not. Else ().
    """
    earlier = Result.parse(store.get("results", key))
    if earlier is None:
        return (UNKNOWN,) if _evicted_content(store, key) not in ("", layer.content) else ()
    if earlier.layer is None or earlier.layer.content == layer.content:
        return earlier.varies
    try:
        return compare(library.index(earlier.layer), library.index(layer)) or earlier.varies
    except StoreProblem:
        return (UNKNOWN,)


def compare(old: Index, new: Index) -> tuple[str, ...]:
    """Paths that stand in one only, or otherwise; times left out."""
    before = {(entry.path, entry.kind): entry._replace(mtime=0, offset=0) for entry in old.entries}
    after = {(entry.path, entry.kind): entry._replace(mtime=0, offset=0) for entry in new.entries}
    paths = {path for path, _ in before.keys() ^ after.keys()}
    paths |= {path for path, kind in before.keys() & after.keys() if before[path, kind] != after[path, kind]}
    return tuple(sorted(paths)[:MAX_VARIES])


def _evicted_content(store: Store, key: str) -> str:
    """The content of the layer of a result that was evicted, "" if that is not remembered."""
    record = store.get("evictions", key)
    with contextlib.suppress(*encoding.UNREADABLE):
        return "" if record is None else str(encoding.parse(record)[3])
    return ""
