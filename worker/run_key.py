"""Run keys: the content key of a RUN, as who asks for it and who makes it both work it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache import encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.operation import Run
    from worker.tree import Tree


def run_key(
    operation: Any, platform: str, rootfs: Sequence[str], sources: Sequence[str], marks: Sequence[Sequence[str]]
) -> str:
    """operation: the `key_form`. rootfs: contents of its layers, lowest first. sources: one text a mount with an input:
    of `path_digest` for files of a context, of `mounted_key` for layers. marks: (id, mark) of secrets that count."""
    parts = {"operation": operation, "platform": platform, "rootfs": list(rootfs), "sources": list(sources)}
    if marks:
        parts["secrets"] = [list(each) for each in marks]
    return encoding.key("content", parts)


def mounted_key(run: Run, number: int, tree: Tree) -> str:
    """What counts of an input that consists of layers. tree: of that input."""
    paths = sorted({mount.source for mount in run.mounts if mount.input == number})
    return encoding.key("mounted", [path_digest(tree, path) for path in paths])


def path_digest(tree: Tree, path: str) -> str:
    """What is at a path, symlinks followed; "absent" if nothing is."""
    found = tree.resolve(path)
    return "absent" if found.entry is None else tree.digest(found.path)
