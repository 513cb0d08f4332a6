"""An image's root filesystem as a directory or as one tar, without a container."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING

from cache.entry import DIRECTORY, FILE, HARDLINK, Entry
from cache.errors import UsageError
from cache.layer_writer import LayerWriter
from compiler.export.destination import new_directory, open_output, staging, sweep, writer, writing
from compiler.export.exported import Exported
from compiler.export.manifest import sha256
from compiler.export.tree_writer import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.rootfs import Rootfs
    from compiler.export.built import BuiltImage
    from worker.library import LayerLibrary

_PIECE = 1 << 20
"""Bytes copied at once."""


def write_directory(
    image: BuiltImage, directory: str, library: LayerLibrary, report: Callable[[str], None]
) -> Exported:
    """Write the files into a new directory, or over those of one that is there, where other files stay.

    Root keeps owners and devices; for anybody else all belongs to the user and devices are left out.
    The directory's own mode and owner are not touched. Raises EnvironmentProblem, RemoteError, UsageError.
    """
    rootfs = _fetched(image, library)
    if not os.path.lexists(directory):
        with new_directory(directory) as temporary:
            return _write_tree(image, rootfs, temporary, None, library, report)
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is not a directory")
    with writing(directory):
        sweep(directory)
        with staging(directory) as temporary:
            return _write_tree(image, rootfs, directory, temporary, library, report)


def write_files_archive(image: BuiltImage, dest: str, stdout: int, library: LayerLibrary) -> Exported:
    """Write the files as one deterministic tar; `-` is `stdout`."""
    rootfs = _fetched(image, library)
    with open_output(dest, stdout) as fd:
        appending = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        if appending and stat.S_ISREG(os.fstat(fd).st_mode):
            # The writer skips over holes, and such a descriptor would close them.
            size = _append(image, rootfs, fd, library)
        else:
            size = _write_tar(image, rootfs, fd, library)
    return Exported(sha256(image.config.to_json()), moved_bytes=size, moved_blobs=1)


def _fetched(image: BuiltImage, library: LayerLibrary) -> Rootfs:
    """Everything is here before the output is touched."""
    library.fetch_all(image.layers)
    return library.rootfs(image.layers)


def _write_tree(
    image: BuiltImage,
    rootfs: Rootfs,
    directory: str,
    waiting: str | None,
    library: LayerLibrary,
    report: Callable[[str], None],
) -> Exported:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    # The user's own path may lead through symlinks; nothing below it does.
    top = os.open(directory, flags)
    stage = os.open(waiting, flags | os.O_NOFOLLOW) if waiting is not None else None
    tree = TreeWriter(top, stage, owners=os.geteuid() == 0)
    written = 0
    first_names: dict[tuple[int, str], str] = {}
    try:
        # A directory's content right behind it, so that each is opened once.
        for entry, number in sorted(rootfs.walk(), key=lambda found: found[0].path.replace("/", "\0")):
            if not entry.path:
                continue
            first = entry.path
            if entry.kind != DIRECTORY:
                first = first_names.setdefault(_identity(rootfs, entry, number), entry.path)
            if first != entry.path:
                tree.link(first, entry.path)
            else:
                tree.add(entry, library.open_tar(image.layers[number]) if entry.kind == FILE else -1)
                written += entry.size
        tree.finish()
    finally:
        tree.close()
        for fd in (top, stage):
            if fd is not None:
                os.close(fd)
    if tree.skipped_devices:
        report(f"{tree.skipped_devices} device files were left out, which only root can make")
    return Exported(sha256(image.config.to_json()), moved_bytes=written, moved_blobs=1)


def _write_tar(image: BuiltImage, rootfs: Rootfs, fd: int, library: LayerLibrary) -> int:
    """Write the tar; its size in bytes."""
    tar = LayerWriter(fd)
    first_names: dict[tuple[int, str], str] = {}
    for entry, number in rootfs.walk():
        if not entry.path:
            continue  # unpacking must not change the directory that one unpacks into
        if entry.kind != DIRECTORY:
            first = first_names.setdefault(_identity(rootfs, entry, number), entry.path)
            if first != entry.path:
                tar.add(Entry(entry.path, HARDLINK, link=first))
                continue
        if entry.kind == FILE:
            tar.add_file(entry, library.open_tar(image.layers[number]), entry.offset)
        else:
            tar.add(entry)
    return tar.finish().blob.size


def _append(image: BuiltImage, rootfs: Rootfs, fd: int, library: LayerLibrary) -> int:
    path = library.store.scratch("files")
    scratch = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        size = _write_tar(image, rootfs, scratch, library)
        write = writer(fd)
        for offset in range(0, size, _PIECE):
            write(os.pread(scratch, _PIECE, offset))
    finally:
        os.close(scratch)
    return size


def _identity(rootfs: Rootfs, entry: Entry, number: int) -> tuple[int, str]:
    """What all names of one file have in common: its layer and its first name there."""
    own = rootfs.layers[number].get(entry.path)
    return number, own.link if own is not None and own.kind == HARDLINK else entry.path
