"""A server's store that is filled without a server, with uses as long ago as a test wants."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.lmdb_store import LmdbStore
from cache.server.action_cache import StoredAction, action_key
from cache.server.shelf import NewBlob, Shelf
from cache.store import Batch, NewFile

if TYPE_CHECKING:
    from pathlib import Path

    from buildgraph.v1 import remote_execution_pb2 as pb

DAY = 86_400


class Shelved:
    """Blobs and results in `STORE`; `close` before a server takes it."""

    def __init__(self, directory: Path) -> None:
        self.store = LmdbStore(str(directory))
        self.shelf = Shelf(self.store)

    def blob(self, data: bytes, namespace: str = "main", days: float = 0.0) -> str:
        """Put one that was last used so many days ago; its digest."""
        sha256, digest = hashlib.sha256(data).hexdigest(), Digest.of(data)
        if len(data) > 32 << 10:
            path = self.store.scratch("blob")
            with open(path, "wb") as file:
                file.write(data)
            self.shelf.put_file(namespace, NewFile(digest, path), sha256, "test")
        else:
            self.shelf.put(namespace, [NewBlob(digest, sha256, data)], "test")
        used = int(time.time() - days * DAY)
        row = json.dumps([str(digest), used, used, "test"], separators=(",", ":")).encode()
        self.store.commit(Batch(records=(("members", f"{namespace}\0{digest}", row),)))
        return str(digest)

    def large(self, namespace: str = "main", days: float = 0.0, size: int = 1_000_000) -> str:
        return self.blob(os.urandom(size), namespace, days)

    def action(self, name: str, *blobs: str, namespace: str = "main", days: float = 0.0, seconds: float = 1.0) -> str:
        """Key of its record."""
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        key = action_key(namespace, "sha256", f"{sha256}/{len(name)}")
        used = int(time.time() - days * DAY)
        record = StoredAction(blobs, b"", seconds, used, used, "test").encode()
        self.store.commit(Batch(records=(("actions", key, record),), needs=tuple(map(Digest.parse, blobs))))
        return key

    def belongs(self, digest: str, namespace: str = "main") -> bool:
        return self.store.get("members", f"{namespace}\0{digest}") is not None

    def is_there(self, digest: str) -> bool:
        """On the disk."""
        return self.store.has_blob(Digest.parse(digest))

    def last_use(self, digest: str, namespace: str = "main") -> int:
        row = self.store.get("members", f"{namespace}\0{digest}")
        return 0 if row is None else int(json.loads(row)[1])

    def close(self) -> None:
        self.store.close()


def action_message(name: str) -> pb.Digest:
    from buildgraph.v1 import remote_execution_pb2 as pb

    return pb.Digest(hash=hashlib.sha256(name.encode()).hexdigest(), size_bytes=len(name))
