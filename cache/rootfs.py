"""Rootfs: several layers seen as the one tree that a container sees, by the rules of overlayfs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.entry import DIRECTORY, HARDLINK, SYMLINK, Entry
from cache.errors import DefinitionError
from cache.index import SMALL_PATHS, Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_SYMLINKS = 40
"""Symlinks that one path may lead through, as Linux counts them (MAXSYMLINKS)."""

NO_LAYER = -1
"""The layer number of the root directory when there are no layers."""

Found = tuple[Entry, int]


class Fact(NamedTuple):
    """What stood at one component of a path: kind is "" and all else empty if nothing did."""

    path: str
    kind: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    link: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Resolution(NamedTuple):
    """Where a path leads.

    path: without symlinks, as far as its components exist; what follows the first missing one is kept literally.
    entry, layer: what stands there, and in which layer, or None and NO_LAYER.
    facts: all components that were looked at, each once, in that order, the root first. Another rootfs in which the
        same facts hold resolves the same path to the same place.
    """

    path: str
    entry: Entry | None
    layer: int
    facts: tuple[Fact, ...]


class Rootfs:
    """The merged view of layers, lowest first. Layers are immutable, so every answer is remembered.

    Directories have the metadata of the topmost layer that lists them; one that no layer lists is 0755 0:0.
    """

    def __init__(self, layers: Sequence[Index]) -> None:
        self.layers = tuple(layers)
        bottom = next((n for n in reversed(range(len(self.layers))) if "" in self.layers[n].opaque), 0)
        self._stacks: dict[str, tuple[int, ...]] = {"": tuple(reversed(range(bottom, len(self.layers))))}
        self._found: dict[str, Found | None] = {}

    def lookup(self, path: str) -> Found | None:
        """(entry, number of its layer) at exactly this path, following no symlink; None if nothing is there.

        A hardlink is given as the entry of its first name, under its own path.
        """
        try:
            return self._found[path]
        except KeyError:
            found = self._found[path] = self._look(path)
            return found

    def listdir(self, path: str) -> list[str]:
        """Sorted names in a directory; empty for what is no directory. No symlink is followed."""
        stack = self._stack(path)
        if not stack:
            return []
        names = set(self.layers[stack[0]].children(path))
        prefix = f"{path}/" if path else ""
        for number in stack[1:]:
            for name in self.layers[number].children(path):
                # A layer above may have removed it.
                if name not in names and self.lookup(prefix + name) is not None:
                    names.add(name)
        return sorted(names)

    def walk(self, path: str = "") -> Iterator[Found]:
        """All that stands at and below a path, sorted by path as layers are; nothing if nothing is there."""
        start = self.lookup(path)
        if start is None:
            return iter(())
        everything = [start]
        waiting = [path] if start[0].kind == DIRECTORY else []
        while waiting:
            directory = waiting.pop()
            prefix = f"{directory}/" if directory else ""
            for name in self.listdir(directory):
                found = self.lookup(prefix + name)
                if found is not None:
                    everything.append(found)
                    if found[0].kind == DIRECTORY:
                        waiting.append(found[0].path)
        everything.sort(key=lambda found: found[0].path)
        return iter(everything)

    def resolve(self, path: str, follow_last: bool = True) -> Resolution:
        """Follow symlinks as a process chrooted here would: `..` stops at the root, absolute links start there.

        path: relative to the root, with or without a leading slash. DefinitionError beyond MAX_SYMLINKS.
        """
        return resolve(self.lookup, path, follow_last)

    def read_small(self, path: str) -> bytes | None:
        """The bytes of one of the SMALL_PATHS, symlinks followed; None if absent, too large or no regular file."""
        _, entry, layer, _ = self.resolve(path)
        if entry is None:
            return None
        own = self.layers[layer].get(entry.path) if layer != NO_LAYER else None
        name = own.link if own is not None and own.kind == HARDLINK else entry.path
        return self.layers[layer].small.get(name) if name in SMALL_PATHS else None

    def _stack(self, path: str) -> tuple[int, ...]:
        """The layers that a directory is merged from, topmost first; none for what is no directory."""
        stack = self._stacks.get(path)
        if stack is None:
            self.lookup(path)
            stack = self._stacks.setdefault(path, ())
        return stack

    def _look(self, path: str) -> Found | None:
        if not path:
            return self._look_at_root()
        missing = [path]
        # Upwards first, so that a deep path needs no deep recursion.
        while (parent := missing[-1].rpartition("/")[0]) not in self._stacks:
            missing.append(parent)
        found: Found | None = None
        while missing:
            found = self._look_in_parent(missing.pop())
        return found

    def _look_at_root(self) -> Found:
        for number in self._stacks[""]:
            entry = self.layers[number].get("")
            if entry is not None:
                return entry, number
        return Entry("", DIRECTORY, 0o755), len(self.layers) - 1

    def _look_in_parent(self, path: str) -> Found | None:
        """Look through the layers that the parent is merged from, from the top, and note those that this one is."""
        stack: list[int] = []
        found: Found | None = None
        for number in self._stacks[path.rpartition("/")[0]]:
            layer = self.layers[number]
            entry = layer.get(path)
            if entry is not None and entry.kind != DIRECTORY:
                if not stack:
                    found = _own(layer, entry), number
                break
            if entry is not None or layer.is_directory(path):
                stack.append(number)
                if found is None and entry is not None:
                    found = entry, number
                if path in layer.opaque:
                    break
            elif path in layer.whiteouts:
                break
        if stack and found is None:
            found = Entry(path, DIRECTORY, 0o755), stack[0]
        self._stacks[path] = tuple(stack)
        self._found[path] = found
        return found


def resolve(lookup: Callable[[str], Found | None], path: str, follow_last: bool = True) -> Resolution:
    """`Rootfs.resolve` over anything that can say what stands at exactly a path."""
    facts: dict[str, Fact] = {}
    here = _visit(lookup, "", facts)
    waiting = path.split("/")[::-1]
    real: list[str] = []
    links = 0
    while waiting:
        name = waiting.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if real:
                real.pop()
            here = _visit(lookup, "/".join(real), facts)
            continue
        if here is None or here[0].kind != DIRECTORY:
            # Below what is missing, or no directory, nothing can be; `..` may still lead out again.
            real.append(name)
            here = None
            continue
        found = _visit(lookup, "/".join((*real, name)), facts)
        # A trailing slash asks for the directory behind a symlink even if the last component is not to be followed.
        if found is not None and found[0].kind == SYMLINK and (follow_last or waiting):
            links += 1
            if links > MAX_SYMLINKS:
                raise DefinitionError(f"{path!r} leads through too many symlinks, or in a circle")
            target = found[0].link
            if target.startswith("/"):
                real.clear()
                here = lookup("")
            waiting += target.split("/")[::-1]
            continue
        real.append(name)
        here = found
    entry, layer = here or (None, NO_LAYER)
    return Resolution("/".join(real), entry, layer, tuple(facts.values()))


def _visit(lookup: Callable[[str], Found | None], path: str, facts: dict[str, Fact]) -> Found | None:
    found = lookup(path)
    if path not in facts:
        if found is None:
            facts[path] = Fact(path)
        else:
            entry = found[0]
            facts[path] = Fact(path, entry.kind, entry.mode, entry.uid, entry.gid, entry.link, entry.xattrs)
    return found


def _own(layer: Index, entry: Entry) -> Entry:
    if entry.kind != HARDLINK:
        return entry
    first = layer.get(entry.link)
    return entry if first is None else first._replace(path=entry.path)
