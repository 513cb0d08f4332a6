"""Selection: which paths of a tree a COPY source names, and the digest of just those."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.entry import DIRECTORY
from cache.errors import DefinitionError
from worker.globs import compile_glob, has_wildcard
from worker.tree import walk_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.entry import Entry
    from worker.tree import Tree


class Match(NamedTuple):
    """name: what a file is called at the destination. path: its real path in the tree. entry, number: what stands
    there, as `Tree.walk` gives it."""

    name: str
    path: str
    entry: Entry
    number: int


def rooted(path: str) -> str:
    """A source path as it is meant: relative to the root, `..` stopping there, without `.` and double slashes."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def select(tree: Tree, pattern: str) -> list[Match]:
    """What a source path or wildcard names, sorted by path; symlinks that it names are followed.

    A wildcard may match nothing. Raises DefinitionError for a path that is not there.
    """
    path = rooted(pattern)
    if not has_wildcard(path):
        found = tree.resolve(path)
        if found.entry is None:
            raise DefinitionError(f"there is no {pattern!r} to copy")
        return [Match(path.rpartition("/")[2], found.path, found.entry, found.layer)]
    matches = []
    for candidate in _expand(tree, path.split("/")):
        found = tree.resolve(candidate)
        if found.entry is not None:
            matches.append(Match(candidate.rpartition("/")[2], found.path, found.entry, found.layer))
    return matches


def _expand(tree: Tree, parts: list[str]) -> list[str]:
    candidates = [""]
    for part in parts:
        following = []
        for candidate in candidates:
            prefix = f"{candidate}/" if candidate else ""
            if not has_wildcard(part):
                following.append(prefix + part)
                continue
            matching = compile_glob(part)
            above = tree.resolve(candidate)
            if above.entry is not None and above.entry.kind == DIRECTORY:
                following += [prefix + name for name in tree.listdir(above.path) if matching(name)]
        candidates = following
    return sorted(candidates)


def selection_digest(tree: Tree, pattern: str, keep: Callable[[str], bool] | None) -> str:
    """BLAKE3 hex of what the pattern selects: names, and all that is there, times left out.

    keep: which paths below a selected directory count; None for all.
    """
    rows = []
    for match in select(tree, pattern):
        directory = match.entry.kind == DIRECTORY
        digest = tree.digest(match.path) if keep is None or not directory else walk_digest(tree, match.path, keep)
        # A directory's own name does not matter: its content is what is copied.
        rows.append(["" if directory else match.name, digest])
    return encoding.key("selection", rows)
