"""TreeWriter: writes files into a directory that may hold anything, never through a symlink."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Entry
from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 30
"""Bytes that the kernel is asked to copy at once; it stops near 2 GiB by itself."""
_NODES = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}


class _Open(NamedTuple):
    """A directory in which files are being written."""

    path: str
    fd: int
    entry: Entry


class TreeWriter:
    """Writes entries depth first, each directory before what is in it. Not for parallel use.

    Every name is made in the directory's own descriptor, and no symlink is followed (I5): one that stands where the
    tree has something else is replaced. Files that are there are replaced in one step; a directory is only replaced by
    another kind of thing when it is empty. OSErrors come out as they are, except for that one.
    """

    def __init__(self, top: int, staging: int | None, *, owners: bool) -> None:
        """top: descriptor of the directory. staging: of one on the same filesystem where new files wait for their
        name, None if nobody sees `top` yet. owners: set them, and make devices, which takes root."""
        self._top = top
        self._staging = staging
        self._owners = owners
        self._stack: list[_Open] = []
        self.skipped_devices = 0

    def add(self, entry: Entry, tar_fd: int) -> None:
        """Write an entry; a FILE's bytes stand in `tar_fd` at its offset."""
        parent, name = self._parent(entry.path)
        if entry.kind == DIRECTORY:
            self._enter(parent, name, entry)
        elif entry.kind in (CHARACTER, BLOCK) and not self._owners:
            self.skipped_devices += 1
        else:
            with self._slot(parent, name, entry.path) as (where, slot):
                self._make(where, slot, entry, tar_fd)

    def link(self, first: str, path: str) -> None:
        """A second name of something that was added."""
        *directories, old = _encoded(first).split(b"/")
        there = os.dup(self._top)
        try:
            for directory in directories:
                above, there = there, os.open(directory, _OPEN_DIRECTORY, dir_fd=there)
                os.close(above)
            parent, name = self._parent(path)
            with self._slot(parent, name, path) as (where, slot):
                os.link(old, slot, src_dir_fd=there, dst_dir_fd=where, follow_symlinks=False)
        finally:
            os.close(there)

    def finish(self) -> None:
        """Give the last directories their modes and times; the tree is complete."""
        while self._stack:
            self._leave()

    def close(self) -> None:
        """Let go, also in the middle of a tree."""
        while self._stack:
            os.close(self._stack.pop().fd)

    def _parent(self, path: str) -> tuple[int, bytes]:
        """(descriptor of the directory, name in it); directories that this path is not in are finished."""
        directory, _, name = path.rpartition("/")
        while self._stack and self._stack[-1].path != directory:
            self._leave()
        return (self._stack[-1].fd if self._stack else self._top), _encoded(name)

    def _enter(self, parent: int, name: bytes, entry: Entry) -> None:
        # Only we may look in until its own mode is set, and we may write whatever that says.
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._stack.append(_Open(entry.path, os.open(name, _OPEN_DIRECTORY, dir_fd=parent), entry))

    def _leave(self) -> None:
        # Behind all its content, which changes its time.
        directory = self._stack.pop()
        try:
            self._describe(directory.fd, directory.entry)
        finally:
            os.close(directory.fd)

    @contextlib.contextmanager
    def _slot(self, parent: int, name: bytes, path: str) -> Iterator[tuple[int, bytes]]:
        """Where to make something that is to stand at `name`: there, or in the staging directory."""
        if self._staging is None:
            yield parent, name
            return
        yield self._staging, b"new"
        try:
            try:
                os.rename(b"new", name, src_dir_fd=self._staging, dst_dir_fd=parent)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=parent)
                os.rename(b"new", name, src_dir_fd=self._staging, dst_dir_fd=parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(b"new", dir_fd=self._staging)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise EnvironmentProblem(
                    f"{path!r} is a directory with files in it, where the image has none",
                    hint="export to a new directory, or remove it first",
                ) from None
            raise

    def _make(self, where: int, name: bytes, entry: Entry, tar_fd: int) -> None:
        if entry.kind == SYMLINK:
            os.symlink(_encoded(entry.link), name, dir_fd=where)
            if self._owners:
                os.chown(name, entry.uid, entry.gid, dir_fd=where, follow_symlinks=False)
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=where, follow_symlinks=False)
            return
        if entry.kind == FILE:
            fd = os.open(name, _CREATE, 0o600, dir_fd=where)
            try:
                _copy(tar_fd, entry, fd)
                self._describe(fd, entry)
            finally:
                os.close(fd)
            return
        os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=where)
        # Opening it plainly would wait for a writer or wake a device; this descriptor stands for the name alone.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
        try:
            self._describe(f"/proc/self/fd/{fd}", entry)
        finally:
            os.close(fd)

    def _describe(self, target: int | str, entry: Entry) -> None:
        """Owner first: giving a file away takes its set-id bits and capabilities. Time last: all else changes it."""
        if self._owners:
            os.chown(target, entry.uid, entry.gid)
        for name, value in entry.xattrs:
            if self._owners or name.startswith("user."):
                # Filesystems without them are common for outputs, and a copy without is of use.
                with contextlib.suppress(OSError):
                    os.setxattr(target, name, value)
        os.chmod(target, entry.mode)
        os.utime(target, (entry.mtime, entry.mtime))


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _copy(tar_fd: int, entry: Entry, fd: int) -> None:
    at, left = entry.offset, entry.size
    while left:
        copied = os.sendfile(fd, tar_fd, at, min(left, _PIECE))
        if not copied:
            raise EnvironmentProblem(f"{entry.path!r} reaches beyond the end of its layer")
        at += copied
        left -= copied
