"""TarHash: both names of a tar, sha256 for images and BLAKE3 for the store, from one pass over its bytes."""

from __future__ import annotations

import hashlib
import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blake3 import blake3

from cache.digest import Digest, OciDigest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUEUED_CHUNKS = 4
"""Chunks that wait for a slower hash; with chunks of 1 MiB the two queues share at most these bytes."""


class TarHash:
    """Takes a stream in order, in any pieces; not for parallel use. `size` counts what it took, in bytes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()
        self._queues: tuple[queue.Queue[bytes | None], ...] = ()
        self.size = 0

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._queues:
            for waiting in self._queues:
                waiting.put(chunk)
        else:
            self._sha256.update(chunk)
            self._blake3.update(chunk)

    @contextmanager
    def parallel(self) -> Iterator[None]:
        """Hash what arrives meanwhile in two helper threads; all of it is hashed and both have ended on return."""
        hashes: tuple[Callable[[bytes], object], ...] = (self._sha256.update, self._blake3.update)
        queues: tuple[queue.Queue[bytes | None], ...] = tuple(queue.Queue(QUEUED_CHUNKS) for _ in hashes)
        threads = [
            threading.Thread(target=_drain, args=pair, name="tar-hash", daemon=True)
            for pair in zip(queues, hashes, strict=True)
        ]
        for thread in threads:
            thread.start()
        self._queues = queues
        try:
            yield
        finally:
            self._queues = ()
            for waiting in queues:
                waiting.put(None)
            for thread in threads:
                thread.join()

    def finish(self) -> tuple[OciDigest, Digest]:
        """(sha256, BLAKE3) of everything so far."""
        return OciDigest("sha256:" + self._sha256.hexdigest()), Digest(self._blake3.hexdigest(), self.size)


def _drain(waiting: queue.Queue[bytes | None], update: Callable[[bytes], object]) -> None:
    while (chunk := waiting.get()) is not None:
        update(chunk)
