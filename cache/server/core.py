"""Core: what all services of one server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.server.access import Guard
    from cache.server.chunk_index import ChunkIndex
    from cache.server.lookups import Lookups
    from cache.server.shelf import Shelf
    from cache.server.uploads import Uploads
    from cache.server.watchdog import Watchdog


class Core(NamedTuple):
    """The store with all that goes on in it, and who watches over it."""

    shelf: Shelf
    chunks: ChunkIndex
    uploads: Uploads
    guard: Guard
    meter: Lookups
    watchdog: Watchdog
