"""Cache mounts: directories that outlive builds, shared, exclusive or one a step, as `sharing` says.

In `STORE/mounts/` each has a NAME (hex digits, with `-NUMBER` behind them for a private one), which has no dot, and:

    NAME        the directory
    NAME.json   its sidecar: canonical JSON of `id`, `target`, `sharing`, `project` ("" if not known) and `made_at`
                (seconds since the epoch); there before the directory is. Its mtime: when a step last began to use it.
                id and target are for people only, so they have no secret in them.
    NAME.use    an empty file. A step holds a shared flock on it from before it looks for the directory until it ends.
    NAME.new, NAME.json.new     being made; what a killed build left of them, the next one replaces

Whoever removes a mount takes an exclusive flock on NAME.use (creating it if it is missing) without waiting: if it
cannot be had, the mount is in use. With the lock in hand it looks whether the name still stands for the file that it
locked, as `hold` does, else it begins anew. Then it removes all of them, NAME.use last, while it holds the lock.
Whoever reads a mount as a whole takes the same lock. Directory and sidecar are made under the shared one and, since
several steps may have that, the lease `mount-NAME.new`.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from typing import TYPE_CHECKING

from cache import encoding, lease
from cache.errors import EnvironmentProblem
from cache.named_lock import lock_name
from cache.run_dir import remove_tree
from cache.store import MOUNTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.operation import Mount

MAX_PRIVATE = 1000
"""Private directories of one id; each stands for a step that ran at the same time as the others."""


class CacheDirectory:
    """path: the directory. Held until `release`."""

    def __init__(self, path: str, use: int, held: lease.Lease | None) -> None:
        self.path = path
        self._use = use
        self._held = held

    def release(self) -> None:
        os.close(self._use)
        if self._held is not None:
            self._held.release()


def mount_key(mount: Mount) -> str:
    """Mounts with the same key are the same cache: one directory, or one for each step if they are private. The id of a
    fleet's mount may begin with its namespace and a NUL."""
    namespace, _, own = mount.id.rpartition("\0")
    return in_namespace(namespace, encoding.key("cache mount", [own, mount.uid, mount.gid, mount.mode])[:32])


def in_namespace(namespace: str, key: str) -> str:
    """What a cache mount is called where those of several namespaces are: in a worker's store, and by the scheduler.
    key: as a build knows it, which knows of no other namespace than its own."""
    return encoding.key("cache mount of a namespace", [namespace, key])[:32] if namespace else key


def open_cache(
    store: str,
    mount: Mount,
    cancelled: Callable[[], bool],
    fill: Callable[[str], None] = lambda _: None,
    shown: Callable[[str], str] = str,
) -> CacheDirectory | None:
    """The directory of a cache mount; waits if it is locked by another step. None if `cancelled` became true.

    Owner, mode and what `fill` puts into it hold for a directory that is made now, and it appears with them; one
    that exists is left as it is. shown: id and target without the secrets in them. Raises EnvironmentProblem, and what
    `fill` raises.
    """
    name = mount_key(mount)
    held = None
    if mount.sharing == "private":
        name, held = _free(store, name, mount.id)
    elif mount.sharing == "locked":
        held = lease.acquire(store, f"mount-{name}", cancelled=cancelled)
        if held is None:
            return None
    with contextlib.ExitStack() as undo:
        if held is not None:
            undo.callback(held.release)
        try:
            use = hold(store, name, cancelled)
            if use is None:
                return None
            undo.callback(os.close, use)
            # As it was written: without a namespace the operation's begins with the slash that would end it.
            title = mount._replace(id=shown(mount.id.removeprefix("/")), target=shown(mount.target))
            if not _provide(store, name, mount, title, cancelled, fill):
                return None
        except OSError as error:
            raise EnvironmentProblem(f"cannot make a cache mount: {error.strerror}") from None
        undo.pop_all()
    return CacheDirectory(os.path.join(store, MOUNTS, name), use, held)


@contextlib.contextmanager
def unused(store: str, mount: Mount) -> Iterator[str | None]:
    """The directory of a cache mount that no step uses, nor begins to use meanwhile, whatever its `sharing`; of private
    ones the first. None if there is no such. Raises OSError."""
    with contextlib.ExitStack() as held:
        yield next(filter(None, (_claim(store, name, held) for name in _names(store, mount))), None)


def _names(store: str, mount: Mount) -> Iterator[str]:
    """Of directories of a mount that may be there."""
    key = mount_key(mount)
    names = (f"{key}-{number}" for number in range(MAX_PRIVATE)) if mount.sharing == "private" else (key,)
    return itertools.takewhile(lambda name: os.path.isdir(os.path.join(store, MOUNTS, name)), names)


def _claim(store: str, name: str, held: contextlib.ExitStack) -> str | None:
    """As whoever removes it does."""
    path = os.path.join(store, MOUNTS, name)
    try:
        held.callback(os.close, lock_name(f"{path}.use", fcntl.LOCK_EX))
    except BlockingIOError:
        return None
    return path if os.path.isdir(path) else None


def _free(store: str, key: str, mount_id: str) -> tuple[str, lease.Lease]:
    """The first private directory that no step has."""
    for number in range(MAX_PRIVATE):
        held = _try(store, f"{key}-{number}")
        if held is not None:
            return f"{key}-{number}", held
    raise EnvironmentProblem(f"more than {MAX_PRIVATE} steps use the private cache mount {mount_id!r} at once")


def _try(store: str, name: str) -> lease.Lease | None:
    tried = iter((False, True))
    return lease.acquire(store, f"mount-{name}", cancelled=lambda: next(tried))


def hold(store: str, name: str, cancelled: Callable[[], bool]) -> int | None:
    """A descriptor with the shared lock on a mount, which nobody removes until it is closed; None if cancelled.

    Raises OSError.
    """
    path = os.path.join(store, MOUNTS, f"{name}.use")
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    while not cancelled():
        try:
            return lock_name(path, fcntl.LOCK_SH)
        except BlockingIOError:
            time.sleep(lease.POLL_SECONDS)  # it is being removed
    return None


def _provide(
    store: str, name: str, mount: Mount, title: Mount, cancelled: Callable[[], bool], fill: Callable[[str], None]
) -> bool:
    """Make what is missing of directory and sidecar, and note the use; False if cancelled. title: the mount as the
    sidecar tells of it. Raises OSError."""
    path = os.path.join(store, MOUNTS, name)
    if not (os.path.isdir(path) and _touch(f"{path}.json")):
        making = lease.acquire(store, f"mount-{name}.new", cancelled=cancelled)
        if making is None:
            return False
        with making:
            if not _touch(f"{path}.json"):
                _write_sidecar(f"{path}.json", title)
            if not os.path.isdir(path):
                _make(path, mount, fill)
    return True


def _make(path: str, mount: Mount, fill: Callable[[str], None]) -> None:
    """Under another name first: a build that is killed meanwhile must not leave half of what it starts with."""
    new = f"{path}.new"
    if os.path.lexists(new):
        remove_tree(new)
    os.mkdir(new, 0o700)
    try:
        os.chown(new, mount.uid, mount.gid)
        os.chmod(new, mount.mode)
        fill(new)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(new)
        raise


def _touch(path: str) -> bool:
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write_sidecar(path: str, mount: Mount) -> None:
    value = {
        "id": mount.id,
        "target": mount.target,
        "sharing": mount.sharing,
        "project": "",
        "made_at": round(time.time(), 3),
    }
    new = f"{path}.new"
    with open(new, "wb") as file:
        file.write(encoding.canonical(value))
    os.rename(new, path)
