"""Reading layers and archives that others made: as they stand into the store, or member by member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from cache.decompress import decompress
from cache.entry import FILE, Entry
from cache.index import MAX_SMALL, SMALL_PATHS
from cache.layer_tree import LayerTree
from cache.layer_writer import LayerTar, write_all
from cache.tar_hash import TarHash
from cache.tar_reader import TarReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["decompress", "import_layer", "read_members"]

_SMALL_NAMES = tuple(path.rpartition("/")[2] for path in SMALL_PATHS)


def import_layer(chunks: Iterable[bytes], fd: int) -> LayerTar:
    """Store a tar byte for byte in an empty file, and name and index it in the same pass.

    The index says what unpacking would leave: a path that comes twice counts once, an entry below a symlink of the
    layer stands where that leads within the layer. CorruptLayer for a tar that is malformed or would reach out of its
    tree; what was written by then is worthless. Two helper threads hash, and have ended on return.
    """
    names = TarHash()
    tree = LayerTree()

    def keep(chunk: bytes) -> None:
        names.update(chunk)
        write_all(fd, chunk)

    with names.parallel():
        reader = TarReader(chunks, keep)
        for entry in reader:
            if entry.kind != FILE:
                tree.add(entry)
                continue
            digest = blake3()
            is_small = entry.size <= MAX_SMALL and entry.path.endswith(_SMALL_NAMES)
            carried: list[memoryview] = []
            for piece in reader.data():
                digest.update(piece)
                if is_small:
                    carried.append(piece)
            tree.add(_with_digest(entry, digest.hexdigest()), b"".join(carried) if is_small else None)
    diff_id, blob = names.finish()
    return LayerTar(diff_id, blob, tree.finish())


def read_members(chunks: Iterable[bytes]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """The members of a tar in its order, each with its data; data that was not read before the next member is skipped.

    Paths are plain and relative and the format is checked, but a path may come twice, marks of removed files come as
    the files that they are, and a hardlink may lead nowhere: `import_layer` is what settles that.
    """
    reader = TarReader(chunks)
    for entry in reader:
        yield entry, map(bytes, reader.data())


def _with_digest(entry: Entry, digest: str) -> Entry:
    path, kind, mode, uid, gid, mtime, size, offset, _, link, major, minor, xattrs = entry
    return Entry(path, kind, mode, uid, gid, mtime, size, offset, digest, link, major, minor, xattrs)
