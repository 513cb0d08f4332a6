"""LogBuffer: what an action has printed so far, from its start, for builds that join at any time."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from typing import TYPE_CHECKING

from worker.fleet.service_limits import LOG_IN_MEMORY, MAX_LOG, MAX_LOGS

if TYPE_CHECKING:
    from collections.abc import Callable


class LogSpace:
    """The room that all logs share. directory: where their files are, which have no names."""

    def __init__(self, directory: str, limit: int = MAX_LOG, total: int = MAX_LOGS) -> None:
        self.directory = directory
        self.limit = limit
        self._left = total
        self._lock = threading.Lock()

    def take(self, wanted: int) -> int:
        """Bytes that may be kept."""
        with self._lock:
            taken = min(wanted, self._left)
            self._left -= taken
            return taken

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


def left_out(count: int) -> bytes:
    """The line that stands for bytes that are not shown."""
    return b"[\xe2\x80\xa6 %d bytes of output left out; the whole log is with the result]\n" % count


class LogBuffer:
    """May be used by several threads at once. Whoever reads it holds it, and lets go at the end."""

    def __init__(self, space: LogSpace) -> None:
        self._space = space
        self._lock = threading.Lock()
        self._head = bytearray()
        self._fd: int | None = None
        self._size = 0
        self._taken = 0
        self._next = 0
        """Where in the whole output the next bytes begin."""
        self._is_full = False
        self._lost = 0
        self._ended = False
        self._holders = 1
        self._wakes: list[Callable[[], None]] = []

    @property
    def size(self) -> int:
        """Bytes that can be read by now."""
        return self._size

    def add(self, offset: int, data: bytes) -> None:
        """More output. offset: where in the whole of it; what came already is passed over, what never came is said."""
        with self._lock:
            gap = max(0, offset - self._next)
            fresh = data[max(0, self._next - offset) :]
            if self._ended or not fresh:
                return
            self._next = offset + len(data)
            if self._is_full:
                self._lost += gap + len(fresh)
                return
            if gap:
                self._mark(gap)
            self._keep(fresh)
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()

    def end(self) -> None:
        """Nothing more comes."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            if self._lost:
                self._mark(self._lost)
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()

    def _keep(self, data: bytes) -> None:
        room = max(0, min(len(data), self._space.limit - self._size))
        room = self._space.take(room)
        self._taken += room
        if not self._write(data[:room]):
            room = 0
        if room < len(data):
            self._is_full = True
            self._lost += len(data) - room

    def _mark(self, lost: int) -> None:
        whole = not self._size or self._read(self._size - 1, 1) == b"\n"
        line = left_out(lost) if whole else b"\n" + left_out(lost)
        if self._fd is None:
            self._head += line
            self._size += len(line)
        else:
            self._write(line)

    def _write(self, data: bytes) -> bool:
        """False if there is no room on the disk, or no file to be had: the whole log comes with the result."""
        if self._fd is None and len(self._head) + len(data) <= LOG_IN_MEMORY:
            self._head += data
        else:
            try:
                if self._fd is None:
                    self._fd = _nameless_file(self._space.directory)
                _pwrite(self._fd, data, self._size - len(self._head))
            except OSError:
                return False
        self._size += len(data)
        return True

    def read(self, at: int, size: int) -> bytes:
        """Up to so many bytes from there on; none if there are none yet."""
        with self._lock:
            return self._read(at, min(size, self._size - at))

    def _read(self, at: int, size: int) -> bytes:
        if size <= 0:
            return b""
        head = len(self._head)
        if at < head:
            return bytes(self._head[at : at + size])
        assert self._fd is not None
        return os.pread(self._fd, size, at - head)

    # who reads

    def hold(self, wake: Callable[[], None]) -> None:
        """wake: is called, in any thread, when there is more."""
        with self._lock:
            self._holders += 1
            self._wakes.append(wake)

    def let_go(self, wake: Callable[[], None] | None = None) -> None:
        """The last one closes it. None: by whoever made it."""
        with self._lock:
            self._holders -= 1
            if wake is not None:
                with contextlib.suppress(ValueError):
                    self._wakes.remove(wake)
            if self._holders:
                return
            fd, self._fd = self._fd, None
            self._head.clear()
            self._size, self._ended = 0, True
            taken, self._taken = self._taken, 0
        self._space.give_back(taken)
        if fd is not None:
            os.close(fd)


def _nameless_file(directory: str) -> int:
    fd, path = tempfile.mkstemp(dir=directory, prefix="log-")
    os.unlink(path)
    return fd


def _pwrite(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count
