"""NamedLock: a file lock on a name, of which others may remove the file and make another."""

from __future__ import annotations

import fcntl
import os


def lock_name(path: str, how: int) -> int:
    """A descriptor with the lock on the file that stands at the path, made if there is none; closing it lets go.

    how: fcntl.LOCK_SH or LOCK_EX; it is not waited for. Raises BlockingIOError if another has it, OSError.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        if stands(path, fd):
            return fd
        os.close(fd)


def stands(path: str, fd: int) -> bool:
    """Whether the path still leads to the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
