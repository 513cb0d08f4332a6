"""Cache mounts: directories that outlive builds, shared, exclusive or one a step, as `sharing` says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache import encoding, lease
from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.operation import Mount

MOUNTS = "mounts"
MAX_PRIVATE = 1000
"""Private directories of one id; each stands for a step that ran at the same time as the others."""


class CacheDirectory:
    """path: the directory. fresh: it was just made and is empty. Held until `release`."""

    def __init__(self, path: str, held: lease.Lease | None, fresh: bool) -> None:
        self.path = path
        self.fresh = fresh
        self._held = held

    def release(self) -> None:
        if self._held is not None:
            self._held.release()


def open_cache(store: str, mount: Mount, cancelled: Callable[[], bool]) -> CacheDirectory | None:
    """The directory of a cache mount; waits if it is locked by another step. None if `cancelled` became true.

    Owner and mode hold for a directory that is made now; an existing one is left as it is. Raises EnvironmentProblem.
    """
    key = encoding.key("cache mount", [mount.id, mount.uid, mount.gid, mount.mode])[:32]
    if mount.sharing == "private":
        for number in range(MAX_PRIVATE):
            name = f"{key}-{number}"
            held = _try(store, name)
            if held is not None:
                return _directory(store, name, mount, held)
        raise EnvironmentProblem(f"more than {MAX_PRIVATE} steps use the private cache mount {mount.id!r} at once")
    held = None
    if mount.sharing == "locked":
        held = lease.acquire(store, f"mount-{key}", cancelled=cancelled)
        if held is None:
            return None
    return _directory(store, key, mount, held)


def _try(store: str, name: str) -> lease.Lease | None:
    tried = iter((False, True))
    return lease.acquire(store, f"mount-{name}", cancelled=lambda: next(tried))


def _directory(store: str, name: str, mount: Mount, held: lease.Lease | None) -> CacheDirectory:
    path = os.path.join(store, MOUNTS, name)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return CacheDirectory(path, held, fresh=False)
        os.chown(path, mount.uid, mount.gid)
        os.chmod(path, mount.mode)
    except OSError as error:
        if held is not None:
            held.release()
        raise EnvironmentProblem(f"cannot make a cache mount: {error.strerror}") from None
    return CacheDirectory(path, held, fresh=True)
