"""Selection: which paths of a tree a COPY source names, and the digest of just those."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache import encoding
from cache.entry import DIRECTORY
from cache.errors import DefinitionError
from worker.context import ContextTree
from worker.globs import compile_glob, has_wildcard
from worker.tree import walk_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.entry import Entry
    from worker.tree import Tree


class Match(NamedTuple):
    """name: what a file is called at the destination. path: its real path in the tree. entry, number: what stands
    there, as `Tree.walk` gives it. literal: the path before symlinks were followed; relative: the part of it that
    --parents keeps, all of it unless there is a `/./`."""

    name: str
    path: str
    entry: Entry
    number: int
    literal: str
    relative: str


def rooted(path: str) -> str:
    """A source path as it is meant: relative to the root, `..` stopping there, without `.` and double slashes."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def select(tree: Tree, pattern: str, *, deep: bool = False) -> list[Match]:
    """What a source path or wildcard names, sorted by path; symlinks that it names are followed.

    deep: `**` stands for any number of directories. A wildcard may match nothing. Raises DefinitionError for a path
    that is not there.
    """
    path = rooted(pattern)
    # Where --parents begins to keep directories: behind the first `/./`.
    pivot, found_pivot, _ = pattern.partition("/./")
    skipped = len(rooted(pivot).split("/")) if found_pivot and rooted(pivot) else 0

    def match(candidate: str) -> Match | None:
        found = tree.resolve(candidate)
        if found.entry is None:
            return None
        relative = "/".join(candidate.split("/")[skipped:])
        return Match(candidate.rpartition("/")[2], found.path, found.entry, found.layer, candidate, relative)

    if not has_wildcard(path):
        one = match(path)
        if one is None:
            raise DefinitionError(f"there is no {pattern!r} to copy", hint=missing_hint(tree, path))
        return [one]
    return [found for candidate in _expand(tree, path.split("/"), deep) if (found := match(candidate)) is not None]


def missing_hint(tree: Tree, path: str) -> str:
    """For whoever named a path that is not there: what keeps it out, or what is called alike where it ends."""
    import difflib  # 5 ms that only an error has to pay

    path = rooted(path)
    if isinstance(tree, ContextTree) and tree.leaves_out(path):
        return "it is there, but .dockerignore leaves it out"
    above = ""
    for name in path.split("/"):
        found = tree.resolve(f"{above}/{name}")
        if found.entry is None:
            where = tree.resolve(above)
            names = tree.listdir(where.path) if where.entry is not None and where.entry.kind == DIRECTORY else []
            alike = difflib.get_close_matches(name, names, n=1)
            rest = path[len(f"{above}/{name}".lstrip("/")) :]
            if alike:
                there = f"{above}/{alike[0]}".lstrip("/")
                return f"there is {there + rest if tree.resolve(there + rest).entry is not None else there}"
            break
        above = f"{above}/{name}".lstrip("/")
    return "paths begin at the root of the context, stage or image that they are taken from"


def _expand(tree: Tree, parts: list[str], deep: bool) -> list[str]:
    candidates = [""]
    for part in parts:
        following = []
        for candidate in candidates:
            prefix = f"{candidate}/" if candidate else ""
            if deep and part == "**":
                following += _directories_below(tree, candidate)
                continue
            if not has_wildcard(part):
                following.append(prefix + part)
                continue
            matching = _compiled(part)
            above = tree.resolve(candidate)
            if above.entry is not None and above.entry.kind == DIRECTORY:
                following += [prefix + name for name in tree.listdir(above.path) if matching(name)]
        candidates = following
    return sorted(set(candidates))


def _compiled(part: str) -> Callable[[str], bool]:
    try:
        return compile_glob(part)
    except ValueError as error:
        raise DefinitionError(str(error)) from None


def _directories_below(tree: Tree, path: str) -> list[str]:
    """A directory and all directories in it, symlinks not followed."""
    found = tree.resolve(path)
    if found.entry is None or found.entry.kind != DIRECTORY:
        return []
    start = len(found.path) + 1 if found.path else 0
    below = [entry.path[start:] for entry, _ in tree.walk(found.path) if entry.kind == DIRECTORY]
    return [f"{path}/{relative}".strip("/") if relative else path for relative in below]


def selection_digest(
    tree: Tree, pattern: str, keep: Callable[[str], bool] | None, *, parents: bool = False
) -> str:
    """BLAKE3 hex of what the pattern selects: names, and all that is there, times left out.

    keep: which paths below a selected directory count; None for all. parents: so do the directories that lead there.
    """
    rows: list[list[object]] = []
    for match in select(tree, pattern, deep=parents):
        if parents:
            rows.append([match.relative, [[each.mode, each.uid, each.gid] for _, each, _ in leading(tree, match)]])
        directory = match.entry.kind == DIRECTORY
        digest = tree.digest(match.path) if keep is None or not directory else walk_digest(tree, match.path, keep)
        # A directory's own name does not matter: its content is what is copied.
        rows.append(["" if directory else match.name, digest])
    return encoding.key("selection", rows)


def leading(tree: Tree, match: Match) -> Iterator[tuple[str, Entry, int]]:
    """The directories that --parents makes for a match, the match itself too if it is one: the path at the
    destination, and what stands there in the tree."""
    parts = match.relative.split("/") if match.relative else []
    base = match.literal.removesuffix(match.relative).rstrip("/")
    for count in range(1, len(parts) + (match.entry.kind == DIRECTORY)):
        above = "/".join(parts[:count])
        found = tree.resolve(f"{base}/{above}")
        if found.entry is not None and found.entry.kind == DIRECTORY:
            yield above, found.entry, found.layer
