"""Remotes: clients of the one server, one for each namespace that leases came from."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from cache.remote.client import Client
from cache.remote.local_chunks import LocalChunks
from cache.remote.reading import Traffic
from cache.remote.trouble import Unsupported
from cache.remote.writing import BlobWriter

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore
    from cache.remote_settings import RemoteSettings

MOST = 1_000
"""Namespaces with a client of their own; then all begin anew."""


class Remote(NamedTuple):
    """What moves blobs of one namespace."""

    client: Client
    writer: BlobWriter


class Remotes:
    """May be used by several threads at once. chunks: what the store's blobs are made of."""

    def __init__(self, store: LmdbStore, settings: RemoteSettings) -> None:
        self._store = store
        self._settings = settings
        self._lock = threading.Lock()
        self._known: dict[str, Remote] = {}
        self.traffic = Traffic()
        self.chunks = LocalChunks(store)

    def of(self, namespace: str) -> Remote:
        """Connected; a client that had given up is replaced. Raises RemoteTrouble."""
        with self._lock:
            known = self._known.get(namespace)
        if known is not None and not known.client.caller.down:
            return known
        client = Client(self._settings._replace(reads=(namespace,), write=namespace))
        if client.can.function != "blake3":
            client.close()
            raise Unsupported(f"the remote {self._settings.origin} does not name blobs by BLAKE3")
        made = Remote(client, BlobWriter(client, self._store, self.chunks, self.traffic))
        with self._lock:
            # One that is replaced is not closed: another lease may be about to end with it.
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[namespace] = made
        return made

    def close(self) -> None:
        with self._lock:
            known, self._known = self._known, {}
        for each in known.values():
            each.client.close()
