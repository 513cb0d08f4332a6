"""Prepared layers: what `STORE/snapshots/BOOT/` holds, listed and removed while no other build may be using it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cache.disk_usage import tree_bytes
from cache.inventory import Item
from cache.readers import alone
from cache.run_dir import remove_tree
from cache.store import SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.readers import Live

_OWNERS = ("root", "user")


def list_prepared(store: str, deadline: float | None, seconds: Callable[[int], float]) -> list[Item]:
    """Every prepared layer. seconds: what making one of so many bytes takes. Raises TookTooLong."""
    found = []
    for relative in _paths(os.path.join(store, SNAPSHOTS)):
        path = os.path.join(store, SNAPSHOTS, relative)
        size = tree_bytes(path, deadline)
        last = 0
        with contextlib.suppress(OSError):
            last = int(os.lstat(path).st_ctime)  # an extracted layer has the mtime that the layer gives it
        title = f"layer {os.path.basename(relative)[:12]} ready for mounting"
        found.append(Item(f"prepared:{relative}", "prepared", (), size, last, 1, seconds(size), title=title))
    return found


def remove_prepared(store: str, reader: str, relatives: Sequence[str], scratch: Callable[[str], str]) -> list[Live]:
    """Remove them, unless other readers live: any of these may have one mounted; those readers.

    They are moved away while no reader begins, and taken apart later. Raises OSError.
    """
    moved = []
    with alone(store, reader) as others:
        if others:
            return others
        for relative in relatives:
            target = scratch("prepared")
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.rename(os.path.join(store, SNAPSHOTS, relative), target)
                moved.append(target)
    for path in moved:
        with contextlib.suppress(PermissionError):  # out of the way already; a later sweep may be allowed to
            remove_tree(path)
    return []


def _paths(directory: str) -> list[str]:
    """BOOT/NAME.erofs, and NAME below BOOT/root or BOOT/user."""
    found = []
    for boot in _listed(directory):
        for name in _listed(os.path.join(directory, boot)):
            if name in _OWNERS:
                found += [f"{boot}/{name}/{below}" for below in _listed(os.path.join(directory, boot, name))]
            else:
                found.append(f"{boot}/{name}")
    return found


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
