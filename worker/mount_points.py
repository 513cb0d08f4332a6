"""Mount points: where a step's mounts go, and a layer of stubs for those that the root filesystem does not have.

The runtime would make missing mount points in the step's own layer, and they would end up in the image. A directory
with just them, laid between the image's layers and the step's, keeps the step's layer clean without any tidying up.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cache.entry import DIRECTORY
from cache.errors import DefinitionError
from worker.copy_plan import DIRECTORY_MODE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.entry import Entry
    from cache.rootfs import Rootfs

SYSTEM_DIRECTORIES = ("/proc", "/sys", "/dev")
SYSTEM_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")


class MountPoint(NamedTuple):
    """target: absolute path as the step names it. directory: what is mounted is one."""

    target: str
    directory: bool


class Stub(NamedTuple):
    """Something to make in the stub layer. entry: the directory as it stands in the image, None for a new one."""

    path: str
    directory: bool
    entry: Entry | None


def real_target(rootfs: Rootfs, target: str) -> str:
    """Where a mount point really is, symlinks followed: absolute. Raises DefinitionError for the root itself."""
    path = rootfs.resolve(target).path
    if not path:
        raise DefinitionError(f"cannot mount at {target}: that is the root of the image")
    return f"/{path}"


def plan_stubs(rootfs: Rootfs, points: Sequence[MountPoint]) -> tuple[Stub, ...]:
    """What is missing for these mount points, parents first. Raises DefinitionError if a file is in the way."""
    stubs: dict[str, Stub] = {}
    for point in points:
        found = rootfs.resolve(point.target)
        if found.entry is not None:
            if (found.entry.kind == DIRECTORY) != point.directory:
                kind = "a directory" if found.entry.kind == DIRECTORY else "a file"
                raise DefinitionError(f"cannot mount at {point.target}: the image has {kind} there")
            continue
        parts = found.path.split("/")
        for count in range(1, len(parts)):
            prefix = "/".join(parts[:count])
            above = rootfs.lookup(prefix)
            if above is not None and above[0].kind != DIRECTORY:
                raise DefinitionError(f"cannot mount at {point.target}: /{prefix} is not a directory")
            stubs.setdefault(prefix, Stub(prefix, True, None if above is None else above[0]))
        stubs.setdefault(found.path, Stub(found.path, point.directory, None))
    return tuple(stubs[path] for path in sorted(stubs))


def make_stubs(directory: str, stubs: Sequence[Stub], root: Entry | None) -> None:
    """Make the stub layer below a new directory. root: the image's own root directory, if a layer lists it."""
    os.mkdir(directory)
    os.chmod(directory, DIRECTORY_MODE)
    for stub in stubs:
        path = os.path.join(directory, stub.path)
        if not stub.directory:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(fd, 0o644)
            os.close(fd)
            continue
        os.mkdir(path)
        os.chmod(path, DIRECTORY_MODE)  # whatever the umask of whoever builds
        if stub.entry is not None:
            dress(path, stub.entry)
    # Directories last, so that what is made in them does not move their times.
    for stub in reversed(stubs):
        if stub.entry is not None:
            os.utime(os.path.join(directory, stub.path), (stub.entry.mtime, stub.entry.mtime))
    if root is not None:
        dress(directory, root)


def dress(path: str, entry: Entry) -> None:
    """Give a directory of ours the owner, mode and attributes that the image's has."""
    os.chown(path, entry.uid, entry.gid)
    os.chmod(path, entry.mode)
    for name, value in entry.xattrs:
        # An ordinary user may not set security.* or trusted.*; the step sees them missing on this directory only.
        with contextlib.suppress(PermissionError, OSError):
            os.setxattr(path, name, value)
    os.utime(path, (entry.mtime, entry.mtime))
