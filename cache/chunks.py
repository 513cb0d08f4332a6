"""Chunks: cuts a blob where its content says, so that a small change moves few chunks. The only door to FastCDC."""

from __future__ import annotations

import hashlib
import mmap
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from blake3 import blake3

from cache.digest import Digest
from cache.errors import StoreProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

AVERAGE: Final = 524288
LEAST: Final = AVERAGE // 4
MOST: Final = AVERAGE * 4
NORMALIZATION: Final = 2
SEED: Final = 0
"""FastCDC 2020 as the Remote Execution API recommends it; others that follow it cut alike."""
WHOLE: Final = AVERAGE * 4
"""Blobs with fewer bytes are not cut."""


class Chunk(NamedTuple):
    """sha256: 64 hex digits, "" if it was not asked for. offset: where it begins in the blob."""

    digest: Digest
    sha256: str
    offset: int


def cut(path: str, *, sha256: bool = False) -> list[Chunk]:
    """The chunks of a file that nobody changes, in order; one for a short file, none for an empty one.

    1.5 GB/s a core, 0.7 with sha256. Raises StoreProblem.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return []
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                mapped.madvise(mmap.MADV_SEQUENTIAL)
                return list(cut_buffer(data, sha256=sha256))
    except OSError as error:
        raise StoreProblem(f"cannot read {path}: {error.strerror}") from None


def cut_buffer(data: bytes | memoryview, *, sha256: bool = False) -> Iterator[Chunk]:
    """The same for bytes in memory."""
    view = memoryview(data)
    offset = 0
    for size in _sizes(view):
        with view[offset : offset + size] as part:
            second = hashlib.sha256(part).hexdigest() if sha256 else ""
            yield Chunk(Digest(blake3(part).hexdigest(), size), second, offset)
        offset += size


def _sizes(view: memoryview) -> Iterator[int]:
    if len(view) < WHOLE:
        if len(view):
            yield len(view)
        return
    from pyfastcdc import FastCDC

    cutter = FastCDC(AVERAGE, min_size=LEAST, max_size=MOST, normalized_chunking=NORMALIZATION, seed=SEED)
    for chunk in cutter.cut_buf(view):
        yield chunk.length
