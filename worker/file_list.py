"""FileList: the names, modes and sizes of what a COPY source or a mount selects, small enough to be kept with a key."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from cache.entry import DIRECTORY
from worker.selection import select
from worker.tree import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.entry import Entry
    from worker.tree import Tree

MAX_FILES = 200_000
"""Names that are kept of one source; of more, nobody reads which changed."""
DIGEST_CHARS = 16
"""Hex digits kept of a file's digest: enough to see a change, not to name a blob."""


class Listed(NamedTuple):
    """One name. kind: as in `Entry`. size: bytes, below zero if nobody knows. digest: the beginning of its content's,
    or where a link points."""

    path: str
    kind: str
    mode: int
    size: int
    digest: str


class FileChanges(NamedTuple):
    """What is different between two lists. changed, modes: (old, new)."""

    added: tuple[Listed, ...]
    removed: tuple[Listed, ...]
    changed: tuple[tuple[Listed, Listed], ...]
    modes: tuple[tuple[Listed, Listed], ...]


def list_selected(tree: Tree, pattern: str, keep: Callable[[str], bool] | None, *, deep: bool = False) -> list[Listed]:
    """What a COPY source selects, in order of paths; arguments as `selection_digest` has them."""
    found: dict[str, Listed] = {}
    for match in select(tree, pattern, deep=deep):
        if match.entry.kind != DIRECTORY:
            found[match.path] = _listed(match.entry)
            continue
        for _, entry, _ in kept(tree, match.path, keep or (lambda _: True)):
            found[entry.path] = _listed(entry)
    return list(found.values())


def list_below(tree: Tree, path: str) -> list[Listed]:
    """What stands at and below a path; nothing if nothing does."""
    found = tree.resolve(path)
    return [] if found.entry is None else [_listed(entry) for entry, _ in tree.walk(found.path) if entry.path]


def _listed(entry: Entry) -> Listed:
    return Listed(entry.path, entry.kind, entry.mode, entry.size, entry.link or entry.digest[:DIGEST_CHARS])


def encode(files: Iterable[Listed]) -> bytes:
    """Compact bytes; a list that is too long is cut."""
    rows = [
        f"{one.kind}\0{one.mode:o}\0{one.size}\0{one.digest or '-'}\0{one.path}"
        for one, _ in zip(files, range(MAX_FILES), strict=False)
    ]
    return zlib.compress("\0\0".join(rows).encode("utf-8", "surrogateescape"), 1)


def decode(data: bytes) -> list[Listed]:
    """What `encode` was given. ValueError for anything else."""
    try:
        return parse(zlib.decompress(data))
    except zlib.error as error:
        raise ValueError(str(error)) from None


def parse(data: bytes) -> list[Listed]:
    """The same, unpacked."""
    text = data.decode("utf-8", "surrogateescape")
    found = []
    for row in text.split("\0\0") if text else []:
        kind, mode, size, digest, path = row.split("\0", 4)
        found.append(Listed(path, kind, int(mode, 8), int(size), "" if digest == "-" else digest))
    return found


def compare(old: Iterable[Listed], new: Iterable[Listed]) -> FileChanges:
    """What changed from the one to the other, each part in order of paths."""
    before = {one.path: one for one in old}
    after = {one.path: one for one in new}
    unlike = sorted(path for path in before.keys() & after.keys() if before[path] != after[path])
    both = [(before[path], after[path]) for path in unlike]
    return FileChanges(
        added=tuple(after[path] for path in sorted(after.keys() - before.keys())),
        removed=tuple(before[path] for path in sorted(before.keys() - after.keys())),
        changed=tuple(pair for pair in both if pair[0] != pair[1]._replace(mode=pair[0].mode)),
        modes=tuple(pair for pair in both if pair[0] == pair[1]._replace(mode=pair[0].mode)),
    )
