"""Snapshots of cache mounts: what one holds as a layer, and a new one that begins with it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from cache.entry import DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from cache.errors import CorruptLayer
from cache.run_dir import remove_tree
from worker.capture import capture
from worker.extract import extract

if TYPE_CHECKING:
    from cache.index import Index
    from cache.layer_writer import LayerTar
    from worker.operation import Mount

KINDS = (FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO)
"""What a snapshot has: no devices, which are for those who may make them, and nothing that removes."""
REMOVES = ".wh."
"""Names that begin like this mean in a tar that a file is removed."""

BLOCK = 4096
"""What a name counts, so that endless empty files are no small snapshot."""


class State(NamedTuple):
    """bytes: of all files, with BLOCK for each name. mark: changes with every change of what a snapshot has."""

    bytes: int
    mark: str


def look(directory: str, limit: int) -> State:
    """What a cache mount holds that nobody changes now, without reading its files; it stops looking once that is more
    bytes than the limit. Raises OSError."""
    seen = blake3()
    total = 0
    # No recursion, and one descriptor: steps make directories as deep as they like.
    pending = [""]
    while pending and total <= limit:
        path = pending.pop()
        with os.scandir(os.path.join(directory, path)) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                status = entry.stat(follow_symlinks=False)
                name = f"{path}{entry.name}"
                said = (
                    status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
                )  # fmt: skip
                seen.update(f"{name}\0{said}\0".encode("utf-8", "surrogateescape"))
                total += BLOCK + (status.st_size if stat.S_ISREG(status.st_mode) else 0)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{name}/")
    return State(total, seen.hexdigest())


def pack(directory: str, tar_fd: int) -> LayerTar:
    """Write it as the tar of a layer. Raises EnvironmentProblem."""
    return capture(directory, tar_fd, keep=_is_plain)


def unpack(index: Index, tar_fd: int, directory: str, mount: Mount) -> None:
    """Fill a new, empty directory of a cache mount. If that fails it is new and empty again.

    Whatever the layer says, nothing outside is touched, and the directory itself has the mount's owner and mode.
    Raises CorruptLayer for a layer that is no snapshot, EnvironmentProblem, OSError.
    """
    if not all(map(_is_plain, index.entries)):
        raise CorruptLayer("a snapshot of a cache mount has a device, or removes a file")
    try:
        extract(index, tar_fd, directory, userxattr=True, devices=False)
    except BaseException:
        remove_tree(directory)
        os.mkdir(directory, 0o700)
        raise
    finally:
        os.chown(directory, mount.uid, mount.gid)
        os.chmod(directory, mount.mode)


def _is_plain(entry: Entry) -> bool:
    removes = any(name.startswith(REMOVES) for name in entry.path.split("/"))
    return entry.kind in KINDS and not removes
