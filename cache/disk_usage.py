"""Disk usage: bytes on disk of directory trees, bounded in time."""

from __future__ import annotations

import os
import time

from cache.errors import StoreProblem


class TookTooLong(StoreProblem):
    """The deadline came before the end of a tree."""


def free_bytes(directory: str) -> int:
    """Of the disk that a directory is on, for this user. Raises OSError."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def disk_bytes(directory: str) -> int:
    """Of the whole disk that a directory is on. Raises OSError."""
    disk = os.statvfs(directory)
    return disk.f_blocks * disk.f_frsize


def tree_bytes(path: str, deadline: float | None = None, *, linked: bool = True) -> int:
    """Bytes on disk at and below a path, every file counted once; what cannot be read counts nothing.

    linked: count files that have more than one name; scratch files have theirs in `blobs/`. deadline: as
    `time.monotonic`. Raises TookTooLong.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    pending = [path]
    while pending:
        if deadline is not None and time.monotonic() > deadline:
            raise TookTooLong(f"counting {path} took too long")
        current = pending.pop()
        try:
            total += os.lstat(current).st_blocks * 512
            with os.scandir(current) as listing:
                for item in listing:
                    status = item.stat(follow_symlinks=False)
                    if item.is_dir(follow_symlinks=False):
                        pending.append(item.path)
                        continue
                    if status.st_nlink > 1:
                        if not linked or (status.st_dev, status.st_ino) in seen:
                            continue
                        seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
        except OSError:
            continue
    return total
