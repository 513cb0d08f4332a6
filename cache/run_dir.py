"""The scratch directory of one running build: locked while it lives, swept by the next build after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
RUNS = "runs"
LOCK = "lock"


class RunDirectory:
    """`STORE/runs/ID/`, held by an exclusive lock on its `lock` file, which the kernel drops with the process."""

    def __init__(self, store: str) -> None:
        """Raises OSError."""
        runs = os.path.join(store, RUNS)
        os.makedirs(runs, mode=0o700, exist_ok=True)
        while True:
            self.path = os.path.join(runs, f"{os.getpid():x}-{os.urandom(4).hex()}")
            os.mkdir(self.path, 0o700)
            try:
                self._lock = os.open(os.path.join(self.path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if os.path.exists(os.path.join(self.path, LOCK)):
                    return
                os.close(self._lock)
            except FileNotFoundError:
                continue  # a sweep that ran between mkdir and flock took it for dead

    def remove(self) -> None:
        """Delete everything below; what cannot be deleted stays for the next sweep."""
        _remove_run(self.path)
        os.close(self._lock)


def sweep(store: str) -> int:
    """Remove the scratch directories of builds that are no longer alive; the number of them."""
    runs = os.path.join(store, RUNS)
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(runs)):
            removed += _remove_if_dead(os.path.join(runs, name))
    return removed


def _remove_if_dead(path: str) -> int:
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Between mkdir and open of a starting build, or a half-removed one: an empty directory goes, no more.
        with contextlib.suppress(OSError):
            os.rmdir(path)
        return 0
    except NotADirectoryError:
        return 0
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_run(path)
    except BlockingIOError:
        return 0
    finally:
        os.close(lock)
    return 1


def _remove_run(path: str) -> None:
    # The lock goes last: a directory without one counts as just being made.
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            if name != LOCK:
                remove_tree(os.path.join(path, name))
        if os.listdir(path) == [LOCK]:
            os.unlink(os.path.join(path, LOCK))
            os.rmdir(path)


def remove_tree(path: str) -> None:
    """Delete a tree of untrusted names, however deep: by descriptors, following no link, without recursion.

    A directory in the tree is emptied by moving what directories it has up to the top, so only two are open at a time.
    A step may have taken the owner's own rights from a directory; they are given back. Raises OSError.
    """
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    root = os.open(path, _DIRECTORY)
    try:
        pending = os.listdir(root)
        counter = 0
        while pending:
            name = pending.pop()
            if not stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=root)
                continue
            directory = _open_directory(name, root)
            try:
                with os.scandir(directory) as listing:
                    below = [(item.name, item.is_dir(follow_symlinks=False)) for item in listing]
                for child, is_directory in below:
                    if is_directory:
                        counter += 1
                        moved = f"{os.urandom(8).hex()}-{counter}"
                        _move_up(child, directory, moved, root)
                        pending.append(moved)
                    else:
                        os.unlink(child, dir_fd=directory)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    os.rmdir(path)


def _open_directory(name: str, parent: int) -> int:
    """Open a directory so that what is in it can be removed."""
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    if os.fstat(directory).st_mode & 0o700 != 0o700:
        with contextlib.suppress(OSError):
            os.fchmod(directory, 0o700)
    return directory


def _move_up(name: str, directory: int, moved: str, root: int) -> None:
    try:
        os.rename(name, moved, src_dir_fd=directory, dst_dir_fd=root)
    except PermissionError:
        # Moving a directory changes its `..`, for which its own write permission is needed.
        os.chmod(name, 0o700, dir_fd=directory)
        os.rename(name, moved, src_dir_fd=directory, dst_dir_fd=root)
