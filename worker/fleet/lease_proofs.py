"""LeaseProofs: that a worker was given a lease, for a scheduler that has started anew and remembers none."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from cache import encoding
from cache.store import Batch

if TYPE_CHECKING:
    from cache.lmdb_store import LmdbStore

RECORD = "\0fleet\0leases"
"""The record of `shared`, of a kind that no client can read or write, with the key of all proofs; nobody but the
server's user may read the store's database."""
KEY_BYTES = 32
"""Of that key: as many as SHA-256 gives."""


class LeaseProofs:
    """Whoever has no key cannot make one. May be used by several threads at once."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def kept_in(cls, store: LmdbStore) -> LeaseProofs:
        """With the key that the store has, which is made at the first time. Raises StoreProblem."""
        key = store.get("shared", RECORD) or b""
        if len(key) != KEY_BYTES:
            key = os.urandom(KEY_BYTES)
            store.commit(Batch(records=(("shared", RECORD, key),)))
        return cls(key)

    def of(self, lease: str, namespace: str, key: str, worker: bytes) -> bytes:
        """key: of the action. worker: its public key. The boundaries of the four are part of it."""
        text = encoding.canonical(["buildgraph.v1 proof", lease, namespace, key, worker.hex()])
        return hmac.digest(self._key, text, "sha256")

    def holds(self, proof: bytes, lease: str, namespace: str, key: str, worker: bytes) -> bool:
        """Takes as long whatever is wrong with it."""
        return hmac.compare_digest(proof, self.of(lease, namespace, key, worker))
