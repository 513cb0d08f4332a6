"""Pretended: paths of a context that a plan takes for changed, or for there, without anyone touching them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cache import encoding

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMES = {"st_mtime_ns": 0, "st_ctime_ns": 0}


class Pretended:
    """paths: relative to the context's directory; false if there are none. What does not exist is taken for a new
    file."""

    def __init__(self, directory: str, paths: Iterable[str]) -> None:
        self._paths = frozenset(path.strip("/") for path in paths)
        self._added: dict[str, list[str]] = {}
        self._new_directories: set[str] = set()
        for path in self._paths:
            child = path
            while child and not os.path.lexists(os.path.join(directory, child)):
                parent, _, name = child.rpartition("/")
                self._added.setdefault(parent, []).append(name)
                if child != path:
                    self._new_directories.add(child)
                child = parent

    def __bool__(self) -> bool:
        return bool(self._paths)

    def digest(self, path: str) -> str:
        """A digest that no file has, if the path is among those that changed, or below one; else ""."""
        if not self._paths:
            return ""
        above = path
        while above not in self._paths:
            if not above:
                return ""
            above = above.rpartition("/")[0]
        return encoding.key("pretended change", path)

    def touches(self, directory: str) -> bool:
        """Whether what an earlier scan found in this directory does not hold."""
        if not self._paths:
            return False
        prefix = f"{directory}/" if directory else ""
        return bool(self.digest(directory)) or any(path.startswith(prefix) for path in self._paths)

    def is_new_directory(self, path: str) -> bool:
        return path in self._new_directories

    def add(self, found: dict[str, os.stat_result], directory: str) -> dict[str, os.stat_result]:
        """What a directory holds, with the names that are not there."""
        for name in self._added.get(directory, ()):
            path = f"{directory}/{name}" if directory else name
            mode = stat.S_IFDIR | 0o755 if path in self._new_directories else stat.S_IFREG | 0o644
            found.setdefault(name, os.stat_result((mode, 0, 0, 1, 0, 0, 0, 0, 0, 0), _TIMES))
        return found
