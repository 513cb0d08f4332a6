"""Rebase: spells out what a foreign layer leaves to those below it, its directories' places and metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.entry import DIRECTORY, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import CorruptLayer
from cache.index import Index

if TYPE_CHECKING:
    from cache.rootfs import Rootfs

MAX_PASSES = 40
"""Moves that may lead to a further move; no more than symlinks in one path."""


def rebase(index: Index, lower: Rootfs) -> Index:
    """What the layer amounts to when it is unpacked on top of `lower`, as docker unpacks it.

    A tar may hold `lib/x` without `lib/`. Unpacked, `x` lands where `lib` leads: in the directory that is there, whose
    metadata stay, or behind the symlink that is there, never outside the root. Mounted, an implied directory would
    hide both. A mark that removes nothing is left out: in a directory that `lower` has not, overlayfs would show it.
    CorruptLayer if that puts an entry below a file of the layer.
    """
    for _ in range(MAX_PASSES):
        moved = _follow(index, lower)
        if moved is index:
            return _spell_out(index, lower)
        index = moved
    raise CorruptLayer("the layer's directories lead through too many symlinks of the layers below")


def _follow(index: Index, lower: Rootfs) -> Index:
    """Move what stands below implied directories that are symlinks in `lower`; the same index if there are none."""
    targets: dict[str, str] = {}
    for path in index.implied:
        if path.rpartition("/")[0] in targets or index.is_emptied(path):
            continue
        found = lower.lookup(path)
        if found is not None and found[0].kind == SYMLINK:
            targets[path] = lower.resolve(path).path
    if not targets:
        return index
    placed: dict[tuple[str, bool], Entry] = {}
    small = dict(index.small)
    for entry in index.entries:
        path = _moved(entry.path, targets, itself=entry.kind == OPAQUE)
        if path != entry.path and entry.path in small:
            del small[entry.path]
        link = _moved(entry.link, targets) if entry.kind == HARDLINK else entry.link
        key = (path, entry.kind == OPAQUE)
        # What the layer spells out in full counts, as does whatever is there over its removal.
        if key not in placed or path == entry.path or placed[key].kind == WHITEOUT:
            placed[key] = entry._replace(path=path, link=link)
    result = Index(_settle(placed), small)
    both = result.whiteouts.intersection(result.implied)
    if both:
        # Removed and then filled again: what is below the layer is gone, what is in it is there.
        kept = [entry for entry in result.entries if entry.path not in both or entry.kind == OPAQUE]
        result = Index([*kept, *(Entry(path, OPAQUE) for path in both.difference(result.opaque))], small)
    for path in result.parents.union(result.implied):
        above = result.get(path)
        if above is not None and above.kind != DIRECTORY:
            raise CorruptLayer(f"an entry of the layer would stand below {path!r}, which is no directory")
    return result


def _moved(path: str, targets: dict[str, str], *, itself: bool = False) -> str:
    start = path if itself else path.rpartition("/")[0]
    while start:
        if start in targets:
            return (targets[start] + path[len(start) :]).lstrip("/")
        start = start.rpartition("/")[0]
    return path


def _settle(placed: dict[tuple[str, bool], Entry]) -> list[Entry]:
    """Hardlinks again point at an earlier path, and no path is both removed and present."""
    groups: dict[str, list[str]] = {}
    for path, opaque in placed:
        entry = placed[path, opaque]
        if entry.kind == HARDLINK:
            groups.setdefault(entry.link, []).append(path)
    for first, paths in groups.items():
        target = placed.get((first, False))
        if target is None or target.kind in (DIRECTORY, WHITEOUT, HARDLINK):
            raise CorruptLayer(f"the hardlink {paths[0]!r} has no file")
        lead = min(first, *paths)
        for path in (first, *paths):
            placed[path, False] = target._replace(path=path) if path == lead else _link(target, path, lead)
    return list(placed.values())


def _link(target: Entry, path: str, lead: str) -> Entry:
    return Entry(path, HARDLINK, target.mode, target.uid, target.gid, target.mtime, link=lead)


def _spell_out(index: Index, lower: Rootfs) -> Index:
    spelled = []
    moot = {path for path in index.whiteouts if index.is_emptied(path) or lower.lookup(path) is None}
    if not index.implied and not moot:
        return index
    for path in index.implied:
        found = None if index.is_emptied(path) else lower.lookup(path)
        if found is not None and found[0].kind == DIRECTORY:
            spelled.append(found[0])
        else:
            spelled.append(Entry(path, DIRECTORY, 0o755))
    kept = [entry for entry in index.entries if entry.path not in moot]
    return Index([*kept, *spelled], index.small)
