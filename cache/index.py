"""Index: what one layer's tar says, without its bytes."""

from __future__ import annotations

import json
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from blake3 import blake3

from cache.entry import DIRECTORY, HARDLINK, OPAQUE, WHITEOUT, Entry
from cache.errors import CorruptLayer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cache.rootfs import Rootfs

SMALL_PATHS = frozenset({"etc/passwd", "etc/group"})
"""Files whose bytes an index carries, so that user names are resolved without fetching a layer."""
MAX_SMALL = 64 << 10
"""Bytes of such a file; a larger one is not carried."""
MAX_IMPLIED = 64 << 20
"""Characters in the paths of implied directories: one long path implies thousands, a real layer a few kilobytes."""

_CONTENT_VERSION = "buildgraph layer content 1\n"


class Index:
    """The entries of one layer; immutable, so all views of it are computed once, when first asked for.

    Invariants: entries are sorted by path, an OPAQUE after its directory; a HARDLINK's target is an entry of the same
    layer with a smaller path that is neither a HARDLINK nor a DIRECTORY; nothing stands below what is not a directory;
    no path is both removed and present.
    """

    def __init__(self, entries: Iterable[Entry], small: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """small: bytes of the SMALL_PATHS that the layer has as regular files of at most MAX_SMALL bytes."""
        # The letter of OPAQUE sorts after that of DIRECTORY, and no other two kinds share a path.
        self.entries: tuple[Entry, ...] = tuple(sorted(entries))
        self.small: Mapping[str, bytes] = MappingProxyType(dict(small))

    def get(self, path: str) -> Entry | None:
        """The entry that stands at exactly this path; never a WHITEOUT or OPAQUE, never an implied directory."""
        return self._by_path.get(path)

    @cached_property
    def whiteouts(self) -> frozenset[str]:
        """Paths that lower layers may have and this one removes."""
        return frozenset([entry.path for entry in self.entries if entry.kind == WHITEOUT])

    @cached_property
    def opaque(self) -> frozenset[str]:
        """Directories whose content below this layer is gone. May hold the root, which overlayfs cannot mark."""
        return frozenset([entry.path for entry in self.entries if entry.kind == OPAQUE])

    @cached_property
    def parents(self) -> frozenset[str]:
        """Paths that must be directories, because an entry stands in them or empties them; the root among them."""
        return frozenset([entry.path.rpartition("/")[0] for entry in self.entries]) | self.opaque

    @cached_property
    def implied(self) -> tuple[str, ...]:
        """Directories that entries need as parents and that the tar does not list, sorted; never the root."""
        return implied_directories(self.parents, self._by_path)

    def is_directory(self, path: str) -> bool:
        """Whether this layer has a directory here, listed or implied; the root always is one."""
        return path in self._children

    def children(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted, implied directories included; empty for what is no directory here."""
        return self._children.get(path, ())

    def is_emptied(self, path: str) -> bool:
        """Whether this layer removes what lower layers have here, because it empties a directory above.

        A WHITEOUT here says nothing more, and may not be mounted: overlayfs lists the marks of a directory that it
        takes from one layer alone, as names that then cannot be opened.
        """
        if self.opaque:
            while path:
                path = path.rpartition("/")[0]
                if path in self.opaque:
                    return True
        return False

    def content(self) -> str:
        """BLAKE3 as hex of what the layer says; modification times and places in the tar are left out.

        They are left out because the same step on another day says the same. A HARDLINK counts by its target alone.
        """
        rows = [_CONTENT_VERSION]
        for path, kind, mode, uid, gid, _, size, _, digest, link, major, minor, xattrs in self.entries:
            if kind == HARDLINK:
                rows.append(f"{path}\0{kind}\0{link}\0\n")
                continue
            extra = json.dumps([[name, value.hex()] for name, value in xattrs]) if xattrs else ""
            # No field can hold a NUL, so that two different layers cannot spell the same rows.
            rows.append(
                f"{path}\0{kind}\0{mode:o}\0{uid}\0{gid}\0{size}\0{digest}\0{link}\0{major}\0{minor}\0{extra}\0\n"
            )
        return blake3("".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def encode(self) -> bytes:
        """As bytes for the store; the same index always gives the same bytes."""
        from cache.index_codec import encode

        return encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Index:
        """Read what `encode` wrote; CorruptBlob for anything else, and for an index that breaks an invariant."""
        from cache.index_codec import decode

        return decode(data)

    def rebased(self, lower: Rootfs) -> Index:
        """What the layer amounts to on top of `lower`; itself if that is what it says anyway. See cache.rebase."""
        if not self.implied and not self.whiteouts:
            return self
        from cache.rebase import rebase

        return rebase(self, lower)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return self.entries == other.entries and self.small == other.small

    def __hash__(self) -> int:
        return hash(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Index({len(self.entries)} entries)"

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.entries if entry.kind != WHITEOUT and entry.kind != OPAQUE}

    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        names: dict[str, list[str]] = {"": []}
        for path in self.implied:
            names[path] = []
        for path, entry in self._by_path.items():
            if entry.kind == DIRECTORY and path not in names:
                names[path] = []
        for path in (*self._by_path, *self.implied):
            if path:
                parent, _, name = path.rpartition("/")
                names[parent].append(name)
        return {path: tuple(sorted(below)) for path, below in names.items()}


def implied_directories(needed: Iterable[str], listed: Collection[str]) -> tuple[str, ...]:
    """The directories among `needed` and all above them that are not `listed`, sorted, without the root.

    CorruptLayer beyond MAX_IMPLIED.
    """
    implied: set[str] = set()
    total = 0
    for start in needed:
        path = start
        while path and path not in listed and path not in implied:
            implied.add(path)
            total += len(path)
            if total > MAX_IMPLIED:
                raise CorruptLayer(f"the layer implies too many directories, among them {path[:100]!r}")
            path = path.rpartition("/")[0]
    return tuple(sorted(implied))
