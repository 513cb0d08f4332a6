"""open_blob: a blob as a stream, so that a large one need not fit into memory."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING

from cache.errors import StoreProblem

if TYPE_CHECKING:
    from cache.digest import Digest
    from cache.store import Store

IN_MEMORY = 1 << 20
"""Blobs up to this many bytes are read at once, which spares small ones a file."""


def open_blob(store: Store, digest: Digest) -> IO[bytes]:
    """Its bytes, from the first on. Raises StoreProblem if it is not there."""
    if digest.size <= IN_MEMORY:
        return io.BytesIO(store.read_blob(digest))
    try:
        return open(store.blob_path(digest), "rb")
    except OSError as error:
        raise StoreProblem(f"cannot read blob {digest}: {error.strerror}") from None
