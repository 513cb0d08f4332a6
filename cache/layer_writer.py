"""LayerWriter: writes a layer as a canonical tar, and names and indexes it in the same pass."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from cache.entry import BLOCK as BLOCK_DEVICE
from cache.entry import CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import EnvironmentProblem
from cache.index import MAX_SMALL, SMALL_PATHS, Index
from cache.tar_hash import TarHash
from cache.tar_header import TarHeaders, padding

if TYPE_CHECKING:
    from cache.digest import Digest, OciDigest

BUFFER = 1 << 20
"""Bytes that are collected before a write, and that are read at once: larger buffers were no faster."""
PARALLEL_FROM = 8 << 20
"""Files from this many bytes on are hashed in helper threads; for smaller ones threads cost more than they save."""

WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
"""The markers of the OCI image specification, layer.md, "Whiteouts"."""

_ZEROS = bytes(BUFFER)
_TYPEFLAGS = {DIRECTORY: b"5", SYMLINK: b"2", HARDLINK: b"1", CHARACTER: b"3", BLOCK_DEVICE: b"4", FIFO: b"6"}
_TRAILER = bytes(1024)


@dataclass(frozen=True, slots=True)
class LayerTar:
    """A complete layer: its sha256 as images name it, the Digest of the tar, and what it says."""

    diff_id: OciDigest
    blob: Digest
    index: Index


class LayerWriter:
    """Writes entries in ascending order of path to an empty file; the same entries give the same bytes.

    After an exception the tar is incomplete and the writer of no further use. Not for parallel use.
    """

    def __init__(self, fd: int) -> None:
        """fd: open for writing, positioned at its end; only borrowed, and never synced."""
        self._fd = fd
        self._sparse = stat.S_ISREG(os.fstat(fd).st_mode)
        self._hash = TarHash()
        self._headers = TarHeaders()
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._position = 0
        self._entries: list[Entry] = []
        self._first_names: dict[str, Entry] = {}
        self._small: dict[str, bytes] = {}
        self._last = ("", False)

    def add(self, entry: Entry, data: bytes = b"") -> Entry:
        """Write one entry, for a FILE with its data; returns it as the index will have it.

        A size or digest that the entry already has is checked against `data`: EnvironmentProblem if it differs.
        A HARDLINK names an entry that was added before and takes its metadata; ValueError otherwise.
        """
        path, kind, mode, uid, gid, mtime, size, _, digest, link, major, minor, xattrs = entry
        if kind == FILE:
            actual = blake3(data).hexdigest()
            if (digest and digest != actual) or (size and size != len(data)):
                raise _changed(path)
            self._check_order(entry)
            header = self._headers.pack(_name(path), b"0", mode, uid, gid, mtime, len(data), xattrs=_checked(entry))
            offset = self._position + len(header)
            if data:
                self._put(header, data, padding(len(data)))
            else:
                self._put(header)
            if path in SMALL_PATHS and len(data) <= MAX_SMALL:
                self._small[path] = data
            done = Entry(path, FILE, mode, uid, gid, mtime, len(data), offset, actual, "", 0, 0, xattrs)
            return self._index(done)
        self._check_order(entry)
        if kind in (WHITEOUT, OPAQUE):
            self._put(self._headers.pack(_marker(path, kind), b"0", 0, 0, 0, 0))
            done = Entry(path, kind)
            self._entries.append(done)
            return done
        if kind == DIRECTORY:
            done = Entry(path, kind, mode, uid, gid, mtime, xattrs=xattrs)
        elif kind == SYMLINK:
            # Linux has no other mode for symlinks; archives by other tools say all sorts of things.
            done = Entry(path, kind, 0o777, uid, gid, mtime, link=link, xattrs=xattrs)
        elif kind == HARDLINK:
            first = self._first_names.get(link)
            if first is None or first.kind == HARDLINK:
                raise ValueError(f"{path!r} is a hardlink to {link!r}, which was not added before")
            done = Entry(path, kind, first.mode, first.uid, first.gid, first.mtime, link=link)
        elif kind in _TYPEFLAGS:
            done = Entry(path, kind, mode, uid, gid, mtime, major=major, minor=minor, xattrs=xattrs)
        else:
            raise ValueError(f"{path!r} is of no known kind: {kind!r}")
        name = (_name(path) + b"/" if path else b"./") if kind == DIRECTORY else _name(path)
        target = done.link.encode("utf-8", "surrogateescape")
        self._put(
            self._headers.pack(
                name,
                _TYPEFLAGS[kind],
                done.mode,
                done.uid,
                done.gid,
                done.mtime,
                link=target,
                device=(done.major, done.minor),
                xattrs=_checked(done),
            )
        )
        return self._index(done)

    def add_file(self, entry: Entry, source_fd: int, offset: int = 0) -> Entry:
        """Write a FILE of entry.size bytes, which stand in `source_fd` at `offset`; moves its position.

        With offset 0 the source is taken to be the file itself, which must not be longer. A file that is shorter or
        longer, or that has not the digest that the entry names, changed meanwhile: EnvironmentProblem.
        Holes of a sparse source become holes of the tar. Files from PARALLEL_FROM bytes on are hashed in threads.
        """
        size = entry.size
        if size <= BUFFER:
            data = os.pread(source_fd, size + 1 if offset == 0 else size, offset)
            if len(data) != size:
                raise _changed(entry.path)
            return self.add(entry, data)
        if entry.kind != FILE:
            raise ValueError(f"{entry.path!r} is not a file")
        self._check_order(entry)
        header = self._headers.pack(
            _name(entry.path), b"0", entry.mode, entry.uid, entry.gid, entry.mtime, size, xattrs=_checked(entry)
        )
        self._put(header)
        self._flush()
        start = self._position
        if size >= PARALLEL_FROM:
            with self._hash.parallel():
                digest = self._stream(entry.path, source_fd, offset, size)
        else:
            digest = self._stream(entry.path, source_fd, offset, size)
        if (offset == 0 and os.pread(source_fd, 1, size)) or (entry.digest and entry.digest != digest):
            raise _changed(entry.path)
        if rest := padding(size):
            self._put(rest)
        return self._index(entry._replace(offset=start, digest=digest, link="", major=0, minor=0))

    def finish(self) -> LayerTar:
        """Write the end of the archive; the tar is complete but not yet durable."""
        self._put(_TRAILER)
        self._flush()
        diff_id, blob = self._hash.finish()
        return LayerTar(diff_id, blob, Index(self._entries, self._small))

    def _check_order(self, entry: Entry) -> None:
        place = (entry.path, entry.kind == OPAQUE)
        if self._entries and place <= self._last:
            raise ValueError(f"{entry.path!r} was added after {self._last[0]!r}")
        self._last = place

    def _index(self, entry: Entry) -> Entry:
        self._entries.append(entry)
        if entry.kind != DIRECTORY:
            self._first_names[entry.path] = entry
        return entry

    def _put(self, *parts: bytes) -> None:
        size = sum(map(len, parts))
        self._pending += parts
        self._position += size
        self._pending_size += size
        if self._pending_size >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            chunk = b"".join(self._pending)
            self._pending.clear()
            self._pending_size = 0
            self._hash.update(chunk)
            write_all(self._fd, chunk)

    def _stream(self, path: str, source_fd: int, offset: int, size: int) -> str:
        """Copy data piece by piece; the BLAKE3 of it."""
        digest = blake3()
        done = 0
        while done < size:
            data_start, data_end = _next_data(source_fd, offset + done, offset + size) if self._sparse else (0, 0)
            hole = data_start - offset - done if data_end else 0
            if hole > 0:
                self._skip(hole, digest)
                done += hole
            limit = data_end - offset if data_end else size
            while done < limit:
                chunk = os.pread(source_fd, min(BUFFER, limit - done), offset + done)
                if not chunk:
                    raise _changed(path)
                self._hash.update(chunk)
                digest.update(chunk)
                write_all(self._fd, chunk)
                done += len(chunk)
        self._position += size
        return digest.hexdigest()

    def _skip(self, hole: int, digest: blake3) -> None:
        for start in range(0, hole, BUFFER):
            zeros = _ZEROS if hole - start >= BUFFER else _ZEROS[: hole - start]
            self._hash.update(zeros)
            digest.update(zeros)
        # What follows (the archive's end at the least) gives the file its length.
        os.lseek(self._fd, hole, os.SEEK_CUR)


def write_all(fd: int, chunk: bytes) -> None:
    """Write every byte, or raise EnvironmentProblem."""
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise EnvironmentProblem(f"cannot write a layer: {error.strerror}") from error


def _next_data(fd: int, start: int, end: int) -> tuple[int, int]:
    """Where in [start, end] the next data begins and ends; (end, end) if only a hole is left, (0, 0) if unknown."""
    try:
        begin = os.lseek(fd, start, os.SEEK_DATA)
        return min(begin, end), min(os.lseek(fd, begin, os.SEEK_HOLE), end)
    except OSError as error:
        if error.errno == errno.ENXIO and os.fstat(fd).st_size >= end:
            return end, end
        return 0, 0


def _name(path: str) -> bytes:
    if path.rpartition("/")[2].startswith(WHITEOUT_PREFIX):
        raise EnvironmentProblem(
            f"{path!r} cannot be kept in a layer",
            hint=f"{WHITEOUT_PREFIX!r} in front of a name marks a removed file there",
        )
    return path.encode("utf-8", "surrogateescape")


def _marker(path: str, kind: str) -> bytes:
    directory, _, name = path.rpartition("/")
    if kind == OPAQUE:
        directory, name = path, OPAQUE_NAME
    else:
        name = WHITEOUT_PREFIX + name
    return (f"{directory}/{name}" if directory else name).encode("utf-8", "surrogateescape")


def _checked(entry: Entry) -> tuple[tuple[str, bytes], ...]:
    for name, _ in entry.xattrs:
        # A PAX record ends its key at the first "=", so that such a name would come back as another one.
        if "=" in name:
            raise EnvironmentProblem(f"{entry.path!r} has the extended attribute {name!r}, which no tar can carry")
    return entry.xattrs


def _changed(path: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{path!r} changed while it was read", hint="build again when nothing writes to it")
