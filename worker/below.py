"""Below: open paths below a directory that somebody may be changing, never leaving it through a symlink."""

from __future__ import annotations

import os
import threading

_PARENT = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Below:
    """Opens one component after the other, each without following symlinks; the last directory is kept open.

    Threads may use it at the same time. Paths are relative, without `.` and `..`; depth has no limit.
    """

    def __init__(self, root: int) -> None:
        """root: a descriptor of the directory, which is closed with this object."""
        self._root = root
        self._lock = threading.Lock()
        self._last = ("", -1)

    def __del__(self) -> None:
        os.close(self._root)
        if self._last[0]:
            os.close(self._last[1])

    def open(self, path: str, flags: int) -> int:
        """A descriptor; O_NOFOLLOW, O_CLOEXEC and O_NONBLOCK are added. Raises OSError."""
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        parent, _, name = path.rpartition("/")
        with self._lock:
            return os.open(_raw(name) if name else ".", flags, dir_fd=self._parent(parent))

    def read_link(self, path: str) -> str:
        """Where a symlink points. Raises OSError."""
        parent, _, name = path.rpartition("/")
        with self._lock:
            return os.fsdecode(os.readlink(_raw(name), dir_fd=self._parent(parent)))

    def _parent(self, path: str) -> int:
        """A descriptor of a directory, valid until the next call."""
        if not path:
            return self._root
        if self._last[0] == path:
            return self._last[1]
        directory = os.dup(self._root)
        try:
            for name in path.split("/"):
                below = os.open(_raw(name), _PARENT, dir_fd=directory)
                os.close(directory)
                directory = below
        except OSError:
            os.close(directory)
            raise
        if self._last[0]:
            os.close(self._last[1])
        self._last = (path, directory)
        return directory


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
