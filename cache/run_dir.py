"""The scratch directory of one running build: locked while it lives, swept by the next build after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

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
    """Delete a tree of untrusted names: by directory descriptors, following no link; errors leave the rest.

    A step may have taken the owner's own rights from a directory; give them back and try once more.
    """

    import shutil  # 3 ms

    def retry(function: object, failed: str, _error: object) -> None:
        parent = os.path.dirname(failed)
        with contextlib.suppress(OSError):
            for directory in (parent, failed):
                mode = os.lstat(directory).st_mode
                if stat.S_ISDIR(mode):
                    os.chmod(directory, 0o700)
            if stat.S_ISDIR(os.lstat(failed).st_mode):
                shutil.rmtree(failed, ignore_errors=True)
            else:
                os.unlink(failed)

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, onerror=retry)
    else:
        os.unlink(path)
