"""System calls that Python 3.11 does not have: the new mount API, namespaces, parent-death signal. The only door."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE, MS_SLAVE = 16384, 1 << 18, 1 << 19
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
# Numbers above 423 are the same on every architecture.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_SYS_MOUNT_SETATTR = 442
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _check(result: int, what: str, detail: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}{detail}")
    return int(result)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str, target: str, filesystem: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    result = _libc.mount(_bytes(source), _bytes(target), _bytes(filesystem), flags, _bytes(data))
    _check(result, f"mount {filesystem or 'bind'} at {target}")


def restrict(target: str, attributes: int) -> None:
    """mount_setattr(2): add attributes to a mount; unlike a remount it keeps those of others. Raises OSError."""
    change = (ctypes.c_uint64 * 4)(attributes)  # attr_set, attr_clr, propagation, userns_fd
    result = _libc.syscall(_SYS_MOUNT_SETATTR, -100, _bytes(target), 0, change, ctypes.sizeof(change))
    _check(result, f"restrict the mount at {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2). Raises OSError."""
    _check(_libc.umount2(_bytes(target), flags), f"unmount {target}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this signal when the thread that forked this process ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def mount_filesystem(
    kind: str, target: str, options: list[tuple[str, str | None]], attributes: int = 0
) -> None:
    """Mount a new filesystem by fsopen, fsconfig, fsmount and move_mount.

    An option with value None is a flag. Raises OSError with the kernel's own explanation where it gives one.
    """
    fs = _check(_libc.syscall(_SYS_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC), f"fsopen {kind}")
    try:
        for name, value in options:
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            result = _libc.syscall(_SYS_FSCONFIG, fs, command, name.encode(), _bytes(value), 0)
            _check(result, f"mount {kind}, option {name}", _messages(fs) if result < 0 else "")
        result = _libc.syscall(_SYS_FSCONFIG, fs, _FSCONFIG_CMD_CREATE, None, None, 0)
        _check(result, f"mount {kind}", _messages(fs) if result < 0 else "")
        mounted = _check(_libc.syscall(_SYS_FSMOUNT, fs, _FSMOUNT_CLOEXEC, attributes), f"mount {kind}")
    finally:
        os.close(fs)
    try:
        moved = _libc.syscall(_SYS_MOVE_MOUNT, mounted, b"", -100, _bytes(target), _MOVE_MOUNT_F_EMPTY_PATH)
        _check(moved, f"mount {kind} at {target}")
    finally:
        os.close(mounted)


def _messages(fs: int) -> str:
    number = ctypes.get_errno()
    lines = []
    while True:
        try:
            lines.append(os.read(fs, 4096).decode(errors="replace").strip())
        except OSError:
            break
    ctypes.set_errno(number)
    return f" ({'; '.join(lines)})" if lines else ""
