"""Execute COPY, ADD and WORKDIR: plan a layer from indexes and trees, then write it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from cache.entry import DIRECTORY, FILE, Entry
from cache.rootfs import Rootfs
from worker.copy_plan import CopyPlan, conflict
from worker.ignore import IgnoreRules
from worker.operation import Copy, Inline, MakeDirectory, Pattern
from worker.selection import Match, leading, select, selection_digest
from worker.tree import FileTree, Tree, kept
from worker.users import resolve_owner, resolve_user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache.store import Store

INLINE_MODE = 0o644


def plan_copy(operation: Copy, trees: Mapping[int, Tree], rootfs: Rootfs, store: Store) -> CopyPlan:
    """All that a COPY or ADD writes. trees: by number of input. Raises DefinitionError, EnvironmentProblem."""
    below = Rootfs([]) if operation.link else rootfs
    owner = _owner(operation, rootfs)
    now = int(time.time())
    plan = CopyPlan(below, owner=owner, mode=operation.mode, now=now, owner_named=bool(operation.owner))
    keep = keep_rule(operation)
    chosen: list[tuple[Tree, Match, bool]] = []
    for source in operation.sources:
        if isinstance(source, Inline):
            tree: Tree = _inline(source, now)
            matches = select(tree, source.name)
            extract = False
        else:
            tree, extract = trees[source.input], source.extract
            matches = select(tree, source.path, deep=operation.parents)
        # Patterns are relative to each source: a directory's own name is none of theirs.
        taken = [m for m in matches if keep is None or m.entry.kind == DIRECTORY or keep(m.name)]
        chosen += [(tree, match, extract) for match in taken]
    found = below.resolve(operation.destination.strip("/"))
    if operation.parents:
        _plan_parents(plan, found.path, [(tree, match) for tree, match, _ in chosen], keep)
        return plan
    existing = found.entry is not None and found.entry.kind == DIRECTORY
    into = operation.destination.endswith("/") or existing or len(chosen) > 1
    for tree, match, extract in chosen:
        if match.entry.kind == DIRECTORY:
            plan.content(found.path, tree, match.path, keep=keep)
            continue
        archive = _unpack(tree, match, store) if extract and match.entry.kind == FILE else None
        if archive is not None:
            plan.content(found.path, archive, "", archive=True)
        elif into:
            plan.file(f"{found.path}/{match.name}".lstrip("/"), tree, match.entry, match.number)
        else:
            plan.file(found.path, tree, match.entry, match.number)
    return plan


def _plan_parents(
    plan: CopyPlan, target: str, chosen: list[tuple[Tree, Match]], keep: Callable[[str], bool] | None
) -> None:
    """COPY --parents: each source below the directories that lead to it, which keep their own metadata."""
    plan.directory(target)
    for tree, match in chosen:
        for above, entry, number in leading(tree, match):
            plan.like(f"{target}/{above}".lstrip("/"), tree, entry, number)
        place = f"{target}/{match.relative}".strip("/")
        if match.entry.kind == DIRECTORY:
            plan.content(place, tree, match.path, keep=keep)
        else:
            plan.file(place, tree, match.entry, match.number)


def plan_directory(operation: MakeDirectory, rootfs: Rootfs) -> CopyPlan:
    """What a WORKDIR writes: nothing if the directory is there. Raises DefinitionError."""
    user = resolve_user(operation.owner, rootfs.read_small("etc/passwd"), rootfs.read_small("etc/group"))
    plan = CopyPlan(rootfs, owner=(user.uid, user.gid), mode="", now=int(time.time()))
    plan.directory(rootfs.resolve(operation.path).path)
    if not plan.made:
        return CopyPlan(rootfs, owner=None, mode="", now=0)
    return plan


def copy_facts(operation: Copy, trees: Mapping[int, Tree], rootfs: Rootfs) -> dict[str, Any]:
    """What the content key of a COPY or ADD counts beside the operation: sources, destination facts, owner numbers."""
    facts = {"sources": [source_digest(source, trees, operation) for source in operation.sources]}
    if not operation.link:
        found = rootfs.resolve(operation.destination.strip("/"))
        if found.entry is not None and found.entry.kind == DIRECTORY:
            # A result that another base allowed must not hide that on this one the copy is impossible.
            for source in operation.sources:
                if isinstance(source, Pattern):
                    _refuse_conflicts(operation, source, trees[source.input], rootfs, found.path)
    return facts | destination_facts(operation, rootfs)


def destination_facts(operation: Copy, rootfs: Rootfs) -> dict[str, Any]:
    """Those of the facts that the root filesystem gives."""
    facts: dict[str, Any] = {}
    if not operation.link:
        facts["destination"] = rootfs.resolve(operation.destination.strip("/")).facts
    facts["owner"] = _owner(operation, rootfs)
    return facts


def _refuse_conflicts(operation: Copy, source: Pattern, tree: Tree, rootfs: Rootfs, target: str) -> None:
    """Raise DefinitionError where a file would replace a directory of the image or the reverse; reads names only."""
    keep = keep_rule(operation)
    for match in select(tree, source.path, deep=operation.parents):
        directory = match.entry.kind == DIRECTORY
        if not directory and keep is not None and not keep(match.name):
            continue
        place = target
        if operation.parents:
            for above, entry, _ in leading(tree, match):
                _refuse_conflict(f"{target}/{above}".lstrip("/"), entry, rootfs)
            place = f"{target}/{match.relative}".strip("/")
        elif not directory:
            if source.extract and match.entry.kind == FILE:
                continue  # an archive may replace what stands in its way
            place = f"{target}/{match.name}".lstrip("/")
        if not directory:
            _refuse_conflict(place, match.entry, rootfs)
        elif keep is not None:
            for relative, entry, _ in kept(tree, match.path, keep):
                _refuse_conflict(f"{place}/{relative}".lstrip("/"), entry, rootfs)
        else:
            _refuse_conflicts_below(tree, match.path, rootfs, place)


def _refuse_conflicts_below(tree: Tree, path: str, rootfs: Rootfs, target: str) -> None:
    """For all in a directory: only names that are on both sides are looked at, which may be few of many."""
    pending = [(path, target)]
    while pending:
        path, place = pending.pop()
        for name in sorted({*tree.listdir(path)} & {*rootfs.listdir(place)}):
            child, there = f"{path}/{name}".lstrip("/"), f"{place}/{name}".lstrip("/")
            found = tree.lookup(child)
            if found is not None:
                _refuse_conflict(there, found[0], rootfs)
                if found[0].kind == DIRECTORY:
                    pending.append((child, there))


def _refuse_conflict(path: str, entry: Entry, rootfs: Rootfs) -> None:
    there = rootfs.lookup(path)
    if there is not None and (there[0].kind == DIRECTORY) != (entry.kind == DIRECTORY):
        raise conflict(path, entry)


def directory_facts(operation: MakeDirectory, rootfs: Rootfs) -> dict[str, Any]:
    """What the content key of a WORKDIR counts beside the operation."""
    user = resolve_user(operation.owner, rootfs.read_small("etc/passwd"), rootfs.read_small("etc/group"))
    return {"destination": rootfs.resolve(operation.path).facts, "owner": (user.uid, user.gid)}


def source_digest(source: Pattern | Inline, trees: Mapping[int, Tree], operation: Copy) -> str:
    """The digest of just what this source selects. Raises DefinitionError."""
    if isinstance(source, Inline):
        return ""  # its text is part of the operation
    return selection_digest(trees[source.input], source.path, keep_rule(operation), parents=operation.parents)


def _unpack(tree: Tree, match: Match, store: Store) -> Tree | None:
    from worker.archive import unpack  # 15 ms that only an ADD of a local file has to pay

    return unpack(tree, match, store)


def keep_rule(operation: Copy) -> Callable[[str], bool] | None:
    """Which paths below a selected directory --exclude leaves; None for all."""
    if not operation.exclude:
        return None
    rules = IgnoreRules.from_patterns(operation.exclude)
    return lambda path: not rules.ignored(path)


def _owner(operation: Copy, rootfs: Rootfs) -> tuple[int, int] | None:
    if operation.owner:
        return resolve_owner(operation.owner, rootfs.read_small("etc/passwd"), rootfs.read_small("etc/group"))
    return (0, 0) if operation.from_context else None


def _inline(source: Inline, now: int) -> FileTree:
    data = source.text.encode("utf-8", "surrogateescape")
    entry = Entry(source.name, FILE, INLINE_MODE, mtime=now, size=len(data), digest=blake3(data).hexdigest())

    def open_memory() -> int:
        fd = os.memfd_create("heredoc")
        with open(fd, "wb", closefd=False) as memory:
            memory.write(data)
        return fd

    return FileTree(entry, open_memory)

