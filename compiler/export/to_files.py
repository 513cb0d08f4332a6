"""The root filesystems of images as a directory or as one tar, without a container."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cache.entry import DIRECTORY, FILE, HARDLINK, Entry
from cache.errors import UsageError
from cache.layer_writer import LayerWriter
from cache.temporary import locked_directory, sweep
from compiler.export.destination import new_directory, open_output, writer, writing
from compiler.export.exported import Exported, image_id
from compiler.export.placing import all_layers
from compiler.export.tree_writer import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cache.result import Layer
    from compiler.export.built import BuiltImage
    from worker.library import LayerLibrary

_PIECE = 1 << 20
"""Bytes copied at once."""


class _Name(NamedTuple):
    """One name of the output. layer: holds the bytes, if it is a FILE.

    identity: what all names of one file have in common: numbers of its image and layer, and its first name there.
    """

    entry: Entry
    layer: Layer | None
    identity: tuple[int, int, str]


def write_directory(
    images: Sequence[BuiltImage], split: bool, directory: str, library: LayerLibrary, report: Callable[[str], None]
) -> Exported:
    """Write the files into a new directory, or over those of one that is there, where other files stay.

    split: each image has a directory of its own in that one; else they share it, and the later one wins.
    Root keeps owners and devices; for anybody else all belongs to the user and devices are left out.
    The directory's own mode and owner are not touched. Raises EnvironmentProblem, RemoteError, UsageError.
    """
    names = _names(images, split, library)
    if not os.path.lexists(directory):
        with new_directory(directory) as temporary:
            size = _write_tree(names, temporary, None, library, report)
    elif not os.path.isdir(directory):
        raise UsageError(f"{directory} is not a directory")
    else:
        with writing(directory):
            sweep(directory)
            with locked_directory(directory) as temporary:
                size = _write_tree(names, directory, temporary, library, report)
    return Exported(image_id(images), moved_bytes=size, moved_blobs=1)


def write_files_archive(
    images: Sequence[BuiltImage], split: bool, dest: str, stdout: int, library: LayerLibrary
) -> Exported:
    """Write the files as one deterministic tar; `-` is `stdout`. split: as for `write_directory`."""
    names = _names(images, split, library)
    with open_output(dest, stdout) as fd:
        appending = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        if appending and stat.S_ISREG(os.fstat(fd).st_mode):
            # The writer skips over holes, and such a descriptor would close them.
            size = _append(names, fd, library)
        else:
            size = _write_tar(names, fd, library)
    return Exported(image_id(images), moved_bytes=size, moved_blobs=1)


def _names(images: Sequence[BuiltImage], split: bool, library: LayerLibrary) -> list[_Name]:
    """All names of the output but its top, by path. Everything is here before the output is touched."""
    library.fetch_all(list(all_layers(images)))
    found: dict[str, _Name] = {}
    for number, image in enumerate(images):
        names = {name.entry.path: name for name in _names_of(image, number, split, library)}
        # What is no directory any more takes with it what an earlier image has there.
        gone = tuple(
            f"{path}/"
            for path, name in names.items()
            if name.entry.kind != DIRECTORY and path in found and found[path].entry.kind == DIRECTORY
        )
        if gone:
            found = {path: name for path, name in found.items() if not path.startswith(gone)}
        found |= names
    return [found[path] for path in sorted(found)]


def _names_of(image: BuiltImage, number: int, split: bool, library: LayerLibrary) -> Iterator[_Name]:
    rootfs = library.rootfs(image.layers)
    top = str(image.platform).replace("/", "_") if split else ""
    for entry, layer_number in rootfs.walk():
        path = entry.path if not top else f"{top}/{entry.path}" if entry.path else top
        if not path:
            continue  # writing or unpacking must not change the directory that the user names
        own = rootfs.layers[layer_number].get(entry.path) if entry.kind != DIRECTORY else None
        first = own.link if own is not None and own.kind == HARDLINK else entry.path
        layer = image.layers[layer_number] if entry.kind == FILE else None
        yield _Name(entry._replace(path=path) if top else entry, layer, (number, layer_number, first))


def _write_tree(
    names: Sequence[_Name],
    directory: str,
    waiting: str | None,
    library: LayerLibrary,
    report: Callable[[str], None],
) -> int:
    """Write into a directory; bytes of its files. waiting: see `staging` of TreeWriter."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    # The user's own path may lead through symlinks; nothing below it does.
    top = os.open(directory, flags)
    stage = os.open(waiting, flags | os.O_NOFOLLOW) if waiting is not None else None
    tree = TreeWriter(top, stage, owners=os.geteuid() == 0)
    written = 0
    first_names: dict[tuple[int, int, str], str] = {}
    try:
        # A directory's content right behind it, so that each is opened once.
        for entry, layer, identity in sorted(names, key=lambda name: name.entry.path.replace("/", "\0")):
            first = entry.path
            if entry.kind != DIRECTORY:
                first = first_names.setdefault(identity, entry.path)
            if first != entry.path:
                tree.link(first, entry.path)
            else:
                tree.add(entry, library.open_tar(layer) if layer is not None else -1)
                written += entry.size
        tree.finish()
    finally:
        tree.close()
        for fd in (top, stage):
            if fd is not None:
                os.close(fd)
    if tree.skipped_devices:
        report(f"{tree.skipped_devices} device files were left out, which only root can make")
    return written


def _write_tar(names: Sequence[_Name], fd: int, library: LayerLibrary) -> int:
    """Write the tar; its size in bytes."""
    tar = LayerWriter(fd)
    first_names: dict[tuple[int, int, str], str] = {}
    for entry, layer, identity in names:
        if entry.kind != DIRECTORY:
            first = first_names.setdefault(identity, entry.path)
            if first != entry.path:
                tar.add(Entry(entry.path, HARDLINK, link=first))
                continue
        if layer is not None:
            tar.add_file(entry, library.open_tar(layer), entry.offset)
        else:
            tar.add(entry)
    return tar.finish().blob.size


def _append(names: Sequence[_Name], fd: int, library: LayerLibrary) -> int:
    path = library.store.scratch("files")
    scratch = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        size = _write_tar(names, scratch, library)
        write = writer(fd)
        for offset in range(0, size, _PIECE):
            write(os.pread(scratch, _PIECE, offset))
    finally:
        os.close(scratch)
    return size
