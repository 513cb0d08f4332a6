"""Capture: what a step changed, from the overlay's upper directory into a canonical layer."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import EnvironmentProblem
from cache.layer_writer import LayerTar, LayerWriter
from cache.xattr import is_kept

if TYPE_CHECKING:
    from collections.abc import Callable

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MACHINE_XATTRS = ("security.selinux", "security.ima", "security.evm")
"""Set by the host's policy, not by the step; they would make layers differ between machines."""
MAX_OPEN_PATH = 2048
"""Longer paths are opened piece by piece; the kernel takes 4,095 bytes at once."""


class _Found(NamedTuple):
    entry: Entry
    inode: tuple[int, int] | None  # of files with several names


def capture(
    upper: str, tar_fd: int, *, userxattr: bool = False, keep: Callable[[Entry], bool] = lambda _: True
) -> LayerTar:
    """Write the change set below `upper` as a tar. Nothing may write to `upper` any more.

    Whiteouts are 0/0 character devices; opaque directories carry `trusted.overlay.opaque`, with userxattr
    `user.overlay.opaque`: only the one that overlayfs used, since a step can set the other itself.
    Sockets are left out, as in every image, and what `keep` is false for. Raises EnvironmentProblem.
    """
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        walk = _Walk(root, "user.overlay.opaque" if userxattr else "trusted.overlay.opaque")
        found = [item for item in walk.run() if keep(item.entry)]
        found.sort(key=lambda item: (item.entry.path, item.entry.kind == OPAQUE))
        writer = LayerWriter(tar_fd)
        first_names: dict[tuple[int, int], str] = {}
        for entry, inode in found:
            if inode is not None:
                first = first_names.setdefault(inode, entry.path)
                if first != entry.path:
                    writer.add(Entry(entry.path, HARDLINK, link=first))
                    continue
            if entry.kind == FILE and entry.size:
                fd = open_below(root, entry.path, _OPEN)
                try:
                    writer.add_file(entry, fd)
                finally:
                    os.close(fd)
            else:
                writer.add(entry)
        return writer.finish()
    except OSError as error:
        raise EnvironmentProblem(f"cannot read what the step wrote: {error.strerror}: {error.filename or ''}") from None
    finally:
        os.close(root)


class _Walk:
    """Visits an upper directory. opaque: the attribute that marks a directory whose lower content is gone."""

    def __init__(self, root: int, opaque: str) -> None:
        self._root = root
        self._opaque = opaque
        self._found: list[_Found] = []

    def run(self) -> list[_Found]:
        """Everything below the root, in no order."""
        pending = [""]
        while pending:
            path = pending.pop()
            fd = os.dup(self._root) if not path else open_below(self._root, path, _OPEN | os.O_DIRECTORY)
            try:
                with os.scandir(fd) as listing:
                    for item in listing:
                        name = os.fsencode(item.name).decode("utf-8", "surrogateescape")
                        child = f"{path}/{name}" if path else name
                        if self._note(fd, item.name, child, item.stat(follow_symlinks=False)):
                            pending.append(child)
            finally:
                os.close(fd)
        return self._found

    def _note(self, directory: int, name: str, path: str, status: os.stat_result) -> bool:
        """Note one name; whether it is a directory to visit."""
        mode = status.st_mode
        common = (stat.S_IMODE(mode), status.st_uid, status.st_gid, int(status.st_mtime))
        inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        if stat.S_ISREG(mode):
            xattrs, _ = self._xattrs(directory, name)
            self._add(Entry(path, FILE, *common, size=status.st_size, xattrs=xattrs), inode)
        elif stat.S_ISDIR(mode):
            xattrs, opaque = self._xattrs(directory, name)
            self._add(Entry(path, DIRECTORY, *common, xattrs=xattrs))
            if opaque:
                self._add(Entry(path, OPAQUE))
            return True
        elif stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(name, dir_fd=directory)).decode("utf-8", "surrogateescape")
            self._add(Entry(path, SYMLINK, *common, link=target), inode)
        elif stat.S_ISCHR(mode) and status.st_rdev == 0:
            # Before hardlinks: overlayfs links all whiteouts of a directory to one inode.
            self._add(Entry(path, WHITEOUT))
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            kind = CHARACTER if stat.S_ISCHR(mode) else BLOCK
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            self._add(Entry(path, kind, *common, major=major, minor=minor), inode)
        elif stat.S_ISFIFO(mode):
            self._add(Entry(path, FIFO, *common), inode)
        return False

    def _add(self, entry: Entry, inode: tuple[int, int] | None = None) -> None:
        self._found.append(_Found(entry, inode))

    def _xattrs(self, directory: int, name: str) -> tuple[tuple[tuple[str, bytes], ...], bool]:
        """Extended attributes to keep, and whether the directory is opaque."""
        path = f"/proc/self/fd/{directory}/{name}"
        names = os.listxattr(path, follow_symlinks=False)
        if not names:
            return (), False
        opaque = self._opaque in names and os.getxattr(path, self._opaque, follow_symlinks=False) == b"y"
        kept = sorted(name for name in names if is_kept(name) and not name.startswith(_MACHINE_XATTRS))
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in kept), opaque


def open_below(root: int, path: str, flags: int) -> int:
    """Open a path below a directory that nobody changes; also one that is longer than the kernel takes at once."""
    raw = path.encode("utf-8", "surrogateescape")
    if len(raw) <= MAX_OPEN_PATH:
        return os.open(raw, flags, dir_fd=root)
    directory = os.dup(root)
    try:
        while len(raw) > MAX_OPEN_PATH:
            head, _, raw = raw[:MAX_OPEN_PATH].rpartition(b"/")[0], b"", raw[raw.rindex(b"/", 0, MAX_OPEN_PATH) + 1 :]
            below = os.open(head, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.open(raw, flags, dir_fd=directory)
    finally:
        os.close(directory)
