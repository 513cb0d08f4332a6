"""Entry: one name in a layer, with everything that the layer says about it."""

from __future__ import annotations

from typing import NamedTuple

FILE = "f"
DIRECTORY = "d"
SYMLINK = "l"
HARDLINK = "h"
CHARACTER = "c"
BLOCK = "b"
FIFO = "p"
WHITEOUT = "w"
"""What lower layers have at this path is gone."""
OPAQUE = "o"
"""What lower layers have below this directory is gone; stands beside the directory's own entry."""

KINDS = FILE + DIRECTORY + SYMLINK + HARDLINK + CHARACTER + BLOCK + FIFO + WHITEOUT + OPAQUE


class Entry(NamedTuple):
    """One path of a layer.

    path: relative, `/` between names, no `.`, `..`, empty name or trailing slash; `""` is the root directory.
        Bytes that are not UTF-8 are kept as surrogate escapes.
    mode: permission and set-id bits only (0o7777).
    mtime: whole seconds since the epoch.
    size, offset, digest: of a file's data: bytes, its place in the layer's tar, BLAKE3 hex digest.
    link: where a symlink points, or the path of a hardlink's first name.
    xattrs: (name, value) pairs sorted by name; never of the overlay filesystem's own.
    """

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    offset: int = 0
    digest: str = ""
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
