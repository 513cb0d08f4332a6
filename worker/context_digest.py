"""Context digests: what is counted of the files of a context, whether they lie in a directory or in a layer of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from cache.entry import DIRECTORY, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.tree import Tree


def entry_digest(entry: Entry) -> str:
    """BLAKE3 hex of what an entry says beside its name and time."""
    fields = f"{entry.kind}\0{entry.mode:o}\0{entry.size}\0{entry.digest}\0{entry.link}"
    return blake3(fields.encode("utf-8", "surrogateescape")).hexdigest()


def files_digest(entries: Iterable[Entry]) -> str:
    """BLAKE3 hex over everything in one directory, sorted by name; directories among it are passed over."""
    files = [entry for entry in entries if entry.kind != DIRECTORY]
    rows = [f"{entry_digest(entry)}{entry.path.rpartition('/')[2]}" for entry in files]
    return blake3("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def directory_digest(files: str, directories: Iterable[tuple[str, int, str]]) -> str:
    """BLAKE3 hex of a directory. files: of `files_digest`. directories: (name, mode, digest) of those in it, sorted."""
    parts = [files, *(f"{name}\0{mode:o}\0{digest}" for name, mode, digest in directories)]
    return blake3("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def digest_as_context(tree: Tree, path: str) -> str:
    """What `ContextTree.digest` says of a directory with the same files as there are at this real path of a tree, which
    is there. Owners, extended attributes and names that are one file are not looked at: a context has none of them."""
    top = tree.lookup(path)
    assert top is not None
    if top[0].kind != DIRECTORY:
        return entry_digest(top[0])
    # Children first and without recursion, since contexts may be deep.
    order: list[tuple[str, list[Entry]]] = []
    pending = [path]
    while pending:
        directory = pending.pop()
        prefix = f"{directory}/" if directory else ""
        found = [tree.lookup(prefix + name) for name in tree.listdir(directory)]
        order.append((directory, [each[0] for each in found if each is not None]))
        pending += [entry.path for entry in order[-1][1] if entry.kind == DIRECTORY]
    digests: dict[str, str] = {}
    for directory, entries in reversed(order):
        below = [entry for entry in entries if entry.kind == DIRECTORY]
        parts = [(entry.path.rpartition("/")[2], entry.mode, digests[entry.path]) for entry in below]
        digests[directory] = directory_digest(files_digest(entries), parts)
    return digests[path]
