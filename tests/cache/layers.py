"""Layers for tests: small ones by hand, arbitrary ones by hypothesis, and a real mount to look at them through."""

from __future__ import annotations

import ctypes
import os
import pickle
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import strategies as st

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.layer_writer import LayerTar, LayerWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Member = tuple[Entry, bytes]


@contextmanager
def scratch_file() -> Iterator[int]:
    """An empty file without a name."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def write(fd: int, members: Sequence[Member]) -> LayerTar:
    writer = LayerWriter(fd)
    for entry, data in members:
        writer.add(entry, data)
    return writer.finish()


def file(path: str, data: bytes = b"", mode: int = 0o644, **more: Any) -> Member:
    return Entry(path, FILE, mode, **more), data


def directory(path: str, mode: int = 0o755, **more: Any) -> Member:
    return Entry(path, DIRECTORY, mode, **more), b""


def symlink(path: str, link: str) -> Member:
    return Entry(path, SYMLINK, 0o777, link=link), b""


def hardlink(path: str, link: str) -> Member:
    return Entry(path, HARDLINK, link=link), b""


def whiteout(path: str) -> Member:
    return Entry(path, WHITEOUT), b""


def opaque(path: str) -> Member:
    return Entry(path, OPAQUE), b""


def _name_ok(raw: bytes) -> bool:
    return raw not in (b".", b"..") and not raw.startswith(b".wh.") and b"/" not in raw and b"\0" not in raw


names = (
    st.one_of(
        st.sampled_from([b"a", b"b", b"a-b", b"etc", b"passwd", b"x" * 101, b"y" * 255, "é".encode()]),
        st.binary(min_size=1, max_size=12),
    )
    .filter(_name_ok)
    .map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
_xattrs = st.dictionaries(
    st.sampled_from(["user.a", "user.long" + "n" * 200, "trusted.b", "security.c"]), st.binary(max_size=300), max_size=3
).map(lambda pairs: tuple(sorted(pairs.items())))
_ids = st.one_of(st.just(0), st.integers(0, 0xFFFF_FFFE))
_times = st.one_of(st.integers(-(1 << 31), 1 << 40), st.just(1_700_000_000))


@st.composite
def trees(draw: st.DrawFn, removals: bool = True) -> list[Member]:
    """The members of an arbitrary layer in order of path; parents are sometimes left out."""
    kinds: dict[str, str] = {}
    choices = [FILE] * 3 + [DIRECTORY] * 3 + [SYMLINK, CHARACTER, BLOCK, FIFO, "implied"] + [WHITEOUT] * removals
    for _ in range(draw(st.integers(0, 14))):
        parents = ["", *(path for path, kind in kinds.items() if kind in (DIRECTORY, "implied"))]
        parent = draw(st.sampled_from(parents))
        path = f"{parent}/{draw(names)}" if parent else draw(names)
        kinds.setdefault(path, draw(st.sampled_from(choices)))
    members: list[Member] = [directory("", draw(st.integers(0, 0o7777)))] if draw(st.booleans()) else []
    linkable: list[str] = []
    for path in sorted(kinds):
        kind = kinds[path]
        if kind in ("implied", WHITEOUT):
            if kind == WHITEOUT:
                members.append(whiteout(path))
            continue
        if linkable and kind == FILE and draw(st.integers(0, 3)) == 0:
            members.append(hardlink(path, draw(st.sampled_from(linkable))))
            continue
        entry = Entry(path, kind, draw(st.integers(0, 0o7777)), draw(_ids), draw(_ids), draw(_times))
        data = b""
        if kind == SYMLINK:
            entry = entry._replace(link=draw(st.one_of(names, st.just("/" + "long/" * 200))), mode=0o777)
        else:
            if kind in (FILE, DIRECTORY):
                entry = entry._replace(xattrs=draw(_xattrs))
            if kind == FILE:
                data = draw(st.binary(max_size=1500))
            elif kind in (CHARACTER, BLOCK):
                entry = entry._replace(major=draw(st.integers(1, 4095)), minor=draw(st.integers(0, 0xFFFFF)))
        if kind != DIRECTORY:
            linkable.append(path)
        members.append((entry, data))
        if removals and kind == DIRECTORY and draw(st.integers(0, 4)) == 0:
            members.append(opaque(path))
    return members


class Seen(NamedTuple):
    """One name as the kernel shows it."""

    mode: int
    uid: int
    gid: int
    mtime: int
    links: int
    device: int
    data: bytes | str
    xattrs: tuple[tuple[str, bytes], ...]


def look(root: str, read: bool = True) -> dict[str, Seen]:
    """Everything below a directory, by its path; the directory itself is "". Works for any depth."""
    seen: dict[str, Seen] = {}
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    seen[""] = _look_at(top, ".", read)
    waiting = [("", top)]
    while waiting:
        prefix, fd = waiting.pop()
        for raw in sorted(os.listdir(fd)):
            path = f"{prefix}/{raw}" if prefix else raw
            seen[path] = _look_at(fd, raw, read)
            if stat.S_ISDIR(seen[path].mode):
                waiting.append((path, os.open(raw, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)))
        os.close(fd)
    return seen


def _look_at(fd: int, name: str, read: bool) -> Seen:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    place = f"/proc/self/fd/{fd}/{name}"
    data: bytes | str = b""
    if stat.S_ISREG(status.st_mode) and read:
        data = Path(place).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        data = os.readlink(name, dir_fd=fd)
    xattrs = tuple(
        (key, os.getxattr(place, key, follow_symlinks=False))
        for key in sorted(os.listxattr(place, follow_symlinks=False))
    )
    return Seen(
        status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime_ns // 10**9), status.st_nlink, status.st_rdev,
        data, xattrs,
    )  # fmt: skip


_TYPES = {
    FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK,
    FIFO: stat.S_IFIFO, WHITEOUT: stat.S_IFCHR,
}  # fmt: skip


def expected(layer: LayerTar, tar_fd: int, opaque_xattr: str = "trusted.overlay.opaque") -> dict[str, Seen]:
    """What `look` must see of a layer; link counts of directories are 0."""
    index = layer.index
    links: dict[str, int] = {}
    for entry in index.entries:
        if entry.kind == HARDLINK:
            links[entry.link] = links.get(entry.link, 1) + 1
    result = {path: Seen(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, b"", ()) for path in ("", *index.implied)}
    for entry in index.entries:
        if entry.kind == OPAQUE or (entry.kind == WHITEOUT and index.is_emptied(entry.path)):
            continue
        real = entry
        if entry.kind == HARDLINK:
            target = index.get(entry.link)
            assert target is not None
            real = target
        data: bytes | str = b""
        if real.kind == FILE:
            data = os.pread(tar_fd, real.size, real.offset)
        elif real.kind == SYMLINK:
            data = real.link
        count = 0 if real.kind == DIRECTORY else links.get(real.path, 1)
        device = os.makedev(real.major, real.minor)
        mode = _TYPES[real.kind] | real.mode
        result[entry.path] = Seen(mode, real.uid, real.gid, real.mtime, count, device, data, real.xattrs)
    for path in index.opaque:
        seen = result[path]
        result[path] = seen._replace(xattrs=tuple(sorted((*seen.xattrs, (opaque_xattr, b"y")))))
    return result


def without_directory_links(seen: dict[str, Seen]) -> dict[str, Seen]:
    return {path: one._replace(links=0) if stat.S_ISDIR(one.mode) else one for path, one in seen.items()}


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts filesystems and gives files away")


def mounted(image: bytes, tar_fd: int, use: Callable[[str], Any]) -> Any:
    """What `use` returns for the directory where the image is mounted, in a child with mounts of its own."""
    with tempfile.TemporaryDirectory() as place:
        return in_child(lambda: use(_Mounts(place).erofs(image, tar_fd)))


def overlaid(layers: Sequence[tuple[bytes, int]], use: Callable[[str], Any]) -> Any:
    """The same for the images, lowest first and at least two, below an overlay."""
    with tempfile.TemporaryDirectory() as place:

        def run() -> Any:
            mounts = _Mounts(place)
            return use(mounts.overlay([mounts.erofs(image, tar_fd) for image, tar_fd in layers]))

        return in_child(run)


def in_child(use: Callable[[], Any]) -> Any:
    """Call in a forked child, for what must not happen to this process; its result, or its error as AssertionError."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            answer = (True, use())
        except BaseException as error:  # noqa: BLE001 - reported to the parent, and the child ends
            answer = (False, f"{type(error).__name__}: {error}")
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        worked, value = pickle.load(pipe)
    os.waitpid(pid, 0)
    assert worked, value
    return value


_FSOPEN, _FSCONFIG, _FSMOUNT, _MOVE_MOUNT = 430, 431, 432, 429
_SET_STRING, _CREATE = 1, 6
_CLONE_NEWNS = 0x20000
_MS_PRIVATE_ALL = 0x44000


class _Mounts:
    """Mounts in a namespace of this process; they end with it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._count = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        if self._libc.unshare(_CLONE_NEWNS) or self._libc.mount(None, b"/", None, _MS_PRIVATE_ALL, None):
            raise OSError(ctypes.get_errno(), "no mount namespace")

    def erofs(self, image: bytes, tar_fd: int) -> str:
        self._count += 1
        source = Path(self._place, f"image{self._count}")
        source.write_bytes(image)
        return self._mount("erofs", [("source", str(source)), ("device", f"/proc/self/fd/{tar_fd}")])

    def overlay(self, lowers: list[str]) -> str:
        return self._mount("overlay", [("lowerdir+", lower) for lower in reversed(lowers)])

    def _mount(self, kind: str, options: list[tuple[str, str]]) -> str:
        self._count += 1
        target = Path(self._place, f"mount{self._count}")
        target.mkdir()
        fd = self._call(_FSOPEN, kind.encode(), 0)
        for key, value in options:
            self._call(_FSCONFIG, fd, _SET_STRING, key.encode(), value.encode(), 0)
        self._call(_FSCONFIG, fd, _CREATE, None, None, 0)
        mount = self._call(_FSMOUNT, fd, 0, 0)
        self._call(_MOVE_MOUNT, mount, b"", -100, str(target).encode(), 4)
        os.close(mount)
        os.close(fd)
        return str(target)

    def _call(self, *arguments: Any) -> int:
        result = self._libc.syscall(*arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)} in system call {arguments[0]}")
        return int(result)
