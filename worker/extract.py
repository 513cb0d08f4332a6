"""Extract: a layer as a plain directory, for kernels and users that cannot mount it from its tar."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import CorruptLayer, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.index import Index

MAX_OPEN = 128
"""Directories that are held open at once; trees may be deeper than a process may have files."""
_PIECE = 1 << 30
"""Bytes that the kernel is asked to copy at once; it stops near 2 GiB by itself."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICE_TYPES = {CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK, WHITEOUT: stat.S_IFCHR}


def extract(index: Index, tar_fd: int, directory: str, *, userxattr: bool, devices: bool) -> None:
    """Make the tree of one layer in an empty directory, as overlayfs wants its lower layers.

    Every name is opened relative to the directory that holds it and no symlink is followed, so that nothing outside
    `directory` is touched, whatever the layer says. Nothing is synced.

    userxattr: overlayfs is mounted with the option of that name: opaque directories are marked `user.overlay.opaque`
        instead of `trusted.overlay.opaque`, and `trusted.*` attributes are left out, which only root may set.
    devices: make device nodes; otherwise an empty file stands in for each. Whiteouts are 0/0 devices in either case.

    EnvironmentProblem if the filesystem or the user's rights do not allow what the layer needs.
    """
    opaque_name = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
    with _Tree(directory) as tree:
        directories = _directories(index)
        for entry in sorted(directories + _others(index), key=_depth_first):
            with _Naming(entry):
                _make(tree, entry, tar_fd, userxattr=userxattr, devices=devices)
        for entry in index.entries:
            if entry.kind == HARDLINK:
                with _Naming(entry):
                    tree.link(entry.link, entry.path)
        # Children first: a directory's time changes with its content, and its mode may forbid to add any.
        for entry in sorted(directories, key=_depth_first, reverse=True):
            xattrs = [(name, value) for name, value in entry.xattrs if not (userxattr and name.startswith("trusted."))]
            if entry.path in index.opaque:
                xattrs.append((opaque_name, b"y"))
            with _Naming(entry):
                _finish(tree.directory(entry.path), entry, xattrs)


def _directories(index: Index) -> list[Entry]:
    found = [entry for entry in index.entries if entry.kind == DIRECTORY]
    found += [Entry(path, DIRECTORY, 0o755) for path in index.implied]
    if index.get("") is None:
        found.append(Entry("", DIRECTORY, 0o755))
    return found


def _others(index: Index) -> list[Entry]:
    return [
        entry
        for entry in index.entries
        if entry.kind not in (DIRECTORY, HARDLINK, OPAQUE)
        and not (entry.kind == WHITEOUT and index.is_emptied(entry.path))
    ]


def _depth_first(entry: Entry) -> str:
    """Sorts a directory's content right behind it, so that the directories in use stay open."""
    return entry.path.replace("/", "\0")


def _make(tree: _Tree, entry: Entry, tar_fd: int, *, userxattr: bool, devices: bool) -> None:
    path, kind, mode, uid, gid, mtime = entry[:6]
    if not path:
        return
    parent, name = tree.place(path)
    if kind == DIRECTORY:
        os.mkdir(name, 0o700, dir_fd=parent)
        return
    xattrs = [(key, value) for key, value in entry.xattrs if not (userxattr and key.startswith("trusted."))]
    if kind == FILE or (kind in (CHARACTER, BLOCK) and not devices):
        fd = os.open(name, _CREATE_FILE, 0o600, dir_fd=parent)
        try:
            if kind == FILE and entry.size:
                _copy(tar_fd, entry, fd)
            _finish(fd, entry, xattrs)
        finally:
            os.close(fd)
        return
    if kind == SYMLINK:
        os.symlink(entry.link.encode("utf-8", "surrogateescape"), name, dir_fd=parent)
    elif kind == FIFO:
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        os.mknod(name, _DEVICE_TYPES[kind] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
    os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    for key, value in xattrs:
        # Such a file cannot be opened without effect; its directory stands for itself below /proc.
        os.setxattr(b"/proc/self/fd/%d/%b" % (parent, name), key, value, follow_symlinks=False)
    if kind != SYMLINK:
        # It was made here a moment ago, in a directory that no one else has, so that it is no symlink.
        os.chmod(name, mode, dir_fd=parent)
    os.utime(name, (mtime, mtime), dir_fd=parent, follow_symlinks=False)


def _finish(fd: int, entry: Entry, xattrs: Iterable[tuple[str, bytes]]) -> None:
    """Owner first: giving a file away takes its set-id bits and capabilities. Time last: all else changes it."""
    os.fchown(fd, entry.uid, entry.gid)
    for key, value in xattrs:
        os.setxattr(fd, key, value)
    os.fchmod(fd, entry.mode)
    os.utime(fd, (entry.mtime, entry.mtime))


def _copy(tar_fd: int, entry: Entry, fd: int) -> None:
    at, left = entry.offset, entry.size
    while left:
        copied = os.sendfile(fd, tar_fd, at, min(left, _PIECE))
        if not copied:
            raise CorruptLayer(f"{entry.path!r} reaches beyond the end of its layer")
        at += copied
        left -= copied


class _Naming:
    """Turns an OSError into an EnvironmentProblem that names the entry. Cheaper than a generator, at 20,000 a layer."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            hint = ""
            if error.errno == errno.EOPNOTSUPP:
                hint = "the filesystem of the store must support extended attributes"
            elif error.errno in (errno.EPERM, errno.EINVAL):
                hint = "unpacking a layer needs root, or a user namespace that has the layer's users"
            raise EnvironmentProblem(f"cannot unpack {self._entry.path!r}: {error.strerror}", hint=hint) from error


class _Tree:
    """Directories below a root by their path, opened name by name, the last used ones kept open."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> _Tree:
        try:
            self._top = os.open(self._root, _OPEN_DIRECTORY)
        except OSError as error:
            raise EnvironmentProblem(f"cannot unpack into {self._root!r}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._open.values(), self._top):
            os.close(fd)
        self._open.clear()

    def directory(self, path: str) -> int:
        """A descriptor that stays open until MAX_OPEN others were asked for."""
        if not path:
            return self._top
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        missing: list[str] = []
        above = path
        while above and above not in self._open:
            above, _, name = above.rpartition("/")
            missing.append(name)
        fd = self._open[above] if above else self._top
        while missing:
            name = missing.pop()
            above = f"{above}/{name}" if above else name
            fd = os.open(name.encode("utf-8", "surrogateescape"), _OPEN_DIRECTORY, dir_fd=fd)
            self._open[above] = fd
            if len(self._open) > MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return fd

    def place(self, path: str) -> tuple[int, bytes]:
        """(descriptor of the directory, name in it)."""
        parent, _, name = path.rpartition("/")
        return self.directory(parent), name.encode("utf-8", "surrogateescape")

    def link(self, first: str, path: str) -> None:
        there, old = self.place(first)
        # Opening the second directory may close the first.
        there = os.dup(there)
        try:
            here, new = self.place(path)
            os.link(old, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)
