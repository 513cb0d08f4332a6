"""Cache mounts of a store, as its management sees them: listed, and removed when no step uses them.

The protocol is described in `worker/cache_mounts.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from cache import encoding
from cache.disk_usage import tree_bytes
from cache.inventory import Item
from cache.named_lock import lock_name
from cache.run_dir import remove_tree
from cache.store import MOUNTS

if TYPE_CHECKING:
    from collections.abc import Callable


def list_mounts(store: str, deadline: float | None, seconds: Callable[[int], float]) -> list[Item]:
    """Every cache mount. seconds: what filling one of so many bytes takes. Raises TookTooLong."""
    directory = os.path.join(store, MOUNTS)
    found = []
    for name in _names(directory):
        path = os.path.join(directory, name)
        size = tree_bytes(path, deadline)
        last = _last_use(path)
        mount_id, target, project = _sidecar(f"{path}.json")
        title = f"{mount_id or target or name} at {target}" if target and target != mount_id else mount_id or name
        found.append(
            Item(f"mount:{name}", "mount", (), size, last, 1, seconds(size), (project,) if project else (), title=title)
        )
    return found


def remove_mount(store: str, name: str, scratch: str) -> bool:
    """Remove one; False if a step uses it, or it belongs to somebody who may not remove it. scratch: a new path on
    the same filesystem, where it is taken apart. Raises OSError."""
    path = os.path.join(store, MOUNTS, name)
    try:
        lock = lock_name(f"{path}.use", fcntl.LOCK_EX)
    except BlockingIOError:
        return False
    try:
        os.rename(path, scratch)
    except FileNotFoundError:
        pass
    except PermissionError:
        return False
    finally:
        if not os.path.lexists(path):
            for extra in (f"{path}.json", f"{path}.json.new", f"{path}.use"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(extra)
        os.close(lock)
    if os.path.lexists(scratch):
        with contextlib.suppress(PermissionError):  # out of the way already; a later sweep may be allowed to
            remove_tree(scratch)
    return True


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as listing:
            return sorted(item.name for item in listing if "." not in item.name and item.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _last_use(path: str) -> int:
    with contextlib.suppress(OSError):
        return int(os.lstat(f"{path}.json").st_mtime)
    with contextlib.suppress(OSError):
        return int(os.lstat(path).st_ctime)
    return 0


def _sidecar(path: str) -> tuple[str, str, str]:
    """(id, target, project), each "" if it is not known."""
    try:
        with open(path, "rb") as file:
            value = encoding.parse(file.read(1 << 16))
        return str(value["id"]), str(value["target"]), str(value["project"])
    except (OSError, *encoding.UNREADABLE):
        return "", "", ""
