"""LayerTree: what the members of a foreign tar amount to when they are unpacked one after the other."""

from __future__ import annotations

from cache.entry import CHARACTER, DIRECTORY, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import CorruptLayer
from cache.index import MAX_IMPLIED, SMALL_PATHS, Index
from cache.layer_writer import OPAQUE_NAME, WHITEOUT_PREFIX

MAX_ENTRIES = 2_000_000
"""Names in one layer; the largest image seen has a tenth of it."""
MAX_REPLACED = 1000
"""Directories that are replaced by something else within one layer: each costs a search through all names."""
MAX_SYMLINKS = 40
"""Symlinks that one path may lead through, as Linux counts them (MAXSYMLINKS)."""

_AUFS_PREFIX = ".wh..wh."
"""The aufs filesystem's own files; docker has left them out of layers since 2013, and skips them."""


class LayerTree:
    """Takes entries in the order of the tar, later ones over earlier ones; CorruptLayer for what cannot be unpacked."""

    def __init__(self) -> None:
        self._inodes: list[Entry] = []
        self._names: dict[str, int] = {}
        self._directories: set[str] = {""}
        self._whiteouts: set[str] = set()
        self._opaque: set[str] = set()
        self._small: dict[int, bytes] = {}
        self._implied_size = 0
        self._replaced = 0

    def add(self, entry: Entry, small: bytes | None = None) -> None:
        """small: the data, if the file is one whose bytes the index may carry."""
        if len(self._inodes) + len(self._whiteouts) >= MAX_ENTRIES or len(self._names) >= MAX_ENTRIES:
            raise CorruptLayer(f"the layer has more than {MAX_ENTRIES} entries")
        if not entry.path:
            self._names[""] = len(self._inodes)
            self._inodes.append(entry)
            return
        directory, _, name = entry.path.rpartition("/")
        if _AUFS_PREFIX in entry.path and _is_aufs(entry.path):
            return
        if WHITEOUT_PREFIX in directory and any(part.startswith(WHITEOUT_PREFIX) for part in directory.split("/")):
            raise CorruptLayer(f"{entry.path!r} stands below the mark of a removed file")
        directory = self._enter(directory, entry.path)
        path = f"{directory}/{name}" if directory else name
        if name.startswith(WHITEOUT_PREFIX):
            self._remove_below(entry.path, directory, name)
        elif entry.kind == CHARACTER and not entry.major and not entry.minor:
            # Overlayfs takes such a device for the mark of a removed file, whatever the tar meant by it.
            self._put_aside(path)
            self._whiteouts.add(path)
        elif entry.kind == HARDLINK:
            self._link(path, entry)
        else:
            self._put(path, entry, small)

    def finish(self) -> Index:
        for path in [path for path in self._whiteouts if path in self._names or path in self._directories]:
            # A mark speaks of the layers below: what they have is gone, what this one has is there.
            self._whiteouts.discard(path)
            if path in self._directories:
                self._opaque.add(path)
        entries = [Entry(path, WHITEOUT) for path in self._whiteouts]
        entries += [Entry(path, OPAQUE) for path in self._opaque if path in self._directories]
        small = {}
        first_names: dict[int, str] = {}
        for path in sorted(self._names):
            number = self._names[path]
            inode = self._inodes[number]
            first = first_names.setdefault(number, path)
            if first == path:
                entries.append(inode._replace(path=path) if inode.path != path else inode)
                if path in SMALL_PATHS and number in self._small:
                    small[path] = self._small[number]
            else:
                entries.append(Entry(path, HARDLINK, inode.mode, inode.uid, inode.gid, inode.mtime, link=first))
        return Index(entries, small)

    def _put(self, path: str, entry: Entry, small: bytes | None) -> None:
        if entry.kind != DIRECTORY or path not in self._directories:
            self._put_aside(path)
        if entry.kind == DIRECTORY:
            self._directories.add(path)
        elif entry.kind == FILE and small is not None:
            self._small[len(self._inodes)] = small
        self._names[path] = len(self._inodes)
        self._inodes.append(entry)

    def _link(self, path: str, entry: Entry) -> None:
        directory, _, name = entry.link.rpartition("/")
        found = self._find(directory)
        target = f"{found}/{name}" if found else name
        number = self._names.get(target) if found is not None else None
        if number is None or target == path or self._inodes[number].kind == DIRECTORY:
            raise CorruptLayer(f"{entry.path!r} is a hardlink to {entry.link!r}, which is no file of the layer")
        inode = self._inodes[number]
        # The last header that names a file decides about it.
        self._inodes[number] = inode._replace(
            mode=inode.mode if inode.kind == SYMLINK else entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime
        )
        self._put_aside(path)
        self._names[path] = number

    def _remove_below(self, member: str, directory: str, name: str) -> None:
        if name == OPAQUE_NAME:
            self._opaque.add(directory)
            return
        removed = name[len(WHITEOUT_PREFIX) :]
        if removed in ("", ".", ".."):
            raise CorruptLayer(f"{member!r} removes what cannot be removed")
        self._whiteouts.add(f"{directory}/{removed}" if directory else removed)

    def _put_aside(self, path: str) -> None:
        """Make room at a path: whatever stands there, with all below it, is replaced."""
        self._names.pop(path, None)
        if path in self._directories:
            self._replaced += 1
            if self._replaced > MAX_REPLACED:
                raise CorruptLayer(f"the layer replaces too many directories, among them {path!r}")
            self._directories.discard(path)
            self._opaque.discard(path)
            below = f"{path}/"
            for name in [name for name in self._names if name.startswith(below)]:
                del self._names[name]
            for names in (self._directories, self._whiteouts, self._opaque):
                names -= {name for name in names if name.startswith(below)}

    def _enter(self, directory: str, member: str) -> str:
        """The real path of a directory in which a member is put; made if it is missing."""
        if directory in self._directories:
            return directory
        found = self._walk(directory, make=True)
        if found is None:
            raise CorruptLayer(f"{member!r} stands below what is no directory of the layer")
        return found

    def _find(self, directory: str) -> str | None:
        return directory if directory in self._directories else self._walk(directory, make=False)

    def _walk(self, directory: str, *, make: bool) -> str | None:
        """Follow symlinks within the layer, never above its root; None if that leads to no directory."""
        here = ""
        links = 0
        # Names that come out of a symlink are not made: it has to lead to what the layer has.
        waiting = [(name, make) for name in reversed(directory.split("/"))]
        while waiting:
            name, may_make = waiting.pop()
            if name in ("", "."):
                continue
            if name == "..":
                here = here.rpartition("/")[0]
                continue
            path = f"{here}/{name}" if here else name
            if path in self._directories:
                here = path
                continue
            number = self._names.get(path)
            if number is None:
                if not may_make:
                    return None
                self._imply(path)
                here = path
                continue
            inode = self._inodes[number]
            links += 1
            if inode.kind != SYMLINK or links > MAX_SYMLINKS:
                return None
            if inode.link.startswith("/"):
                here = ""
            waiting += [(part, False) for part in reversed(inode.link.split("/"))]
        return here

    def _imply(self, path: str) -> None:
        self._directories.add(path)
        self._implied_size += len(path)
        if self._implied_size > MAX_IMPLIED:
            raise CorruptLayer(f"the layer implies too many directories, among them {path[:100]!r}")


def _is_aufs(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    if name.startswith(_AUFS_PREFIX) and name != OPAQUE_NAME:
        return True
    return any(part.startswith(_AUFS_PREFIX) for part in directory.split("/"))
