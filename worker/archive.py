"""ADD's archives: a local tar, plain or compressed, as the tree that it unpacks to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.errors import CorruptLayer
from cache.layer_reader import decompress, import_layer
from cache.rootfs import Rootfs
from worker.tree import RootfsTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.store import Store
    from worker.selection import Match
    from worker.tree import Data, Tree

_HEADER = 512
_CHUNK = 1 << 20


def unpack(tree: Tree, match: Match, store: Store) -> Tree | None:
    """The archive's files, or None if the file is no tar: its content decides, not its name.

    The archive is untrusted; the unpacked copy lies in the store's scratch space. Raises CorruptLayer for one that
    begins as a tar and is broken.
    """
    with tree.data(match.entry, match.number) as data:
        if not is_tar(_chunks(data, match.entry.size)):
            return None
        path = store.scratch("archive")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        made = import_layer(decompress(_chunks(data, match.entry.size)), fd)
    return RootfsTree(Rootfs([made.index]), lambda _: fd)


def is_tar(chunks: Iterable[bytes]) -> bool:
    """Whether a file, unpacked if it is compressed, begins as a tar does: with a header whose checksum is right."""
    head = b""
    try:
        for chunk in decompress(chunks):
            head += chunk
            if len(head) >= _HEADER:
                break
    except CorruptLayer:
        return False
    if len(head) < _HEADER or not any(head[:_HEADER]):
        return False
    try:
        written = int(head[148:156].split(b"\0", 1)[0].strip() or b"-1", 8)
    except ValueError:
        return False
    return written == sum(head[:148]) + sum(head[156:_HEADER]) + 8 * ord(" ")


def _chunks(data: Data, size: int) -> Iterator[bytes]:
    position, end = data.offset, data.offset + size
    while position < end:
        chunk = os.pread(data.fd, min(_CHUNK, end - position), position)
        if not chunk:
            return
        position += len(chunk)
        yield chunk
