"""Temporary: files and directories beside an output, locked while their process lives and swept by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from typing import TYPE_CHECKING

from cache.run_dir import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"\.buildgraph-[0-9a-f]{16}")


@contextlib.contextmanager
def locked_file(directory: str) -> Iterator[tuple[str, int]]:
    """(path, descriptor) of a new file, which is removed at the end unless it was renamed. Raises OSError."""
    while True:
        path = _fresh(directory)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if _lock(fd, path):
            break
        os.close(fd)
    try:
        yield path, fd
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)


@contextlib.contextmanager
def locked_directory(directory: str, mode: int = 0o700) -> Iterator[str]:
    """A new directory in another one, which is removed at the end unless it was renamed. Raises OSError."""
    while True:
        path = _fresh(directory)
        os.mkdir(path, mode)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process' sweep took it for dead, between the two calls
        if _lock(fd, path):
            break
        os.close(fd)
    try:
        yield path
    finally:
        if os.path.lexists(path):
            remove_tree(path)
        os.close(fd)


def sweep(directory: str) -> None:
    """Remove what killed processes left in a directory: temporary names of this user that nobody locks."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if _NAME.fullmatch(name):
                _remove_if_dead(os.path.join(directory, name))


def _remove_if_dead(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                remove_tree(path)
            else:
                os.unlink(path)
    except OSError:
        return  # in use, or gone
    finally:
        os.close(fd)


def _lock(fd: int, path: str) -> bool:
    """Lock it until this process ends; False if another process' sweep was faster and has removed it."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    return os.path.lexists(path)


def _fresh(directory: str) -> str:
    return os.path.join(directory, f".buildgraph-{os.urandom(8).hex()}")
