"""LogTail: shows what a step prints in another build, while it prints it, and in the end what is missing of it."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import IO, TYPE_CHECKING

from blake3 import blake3

from cache.blob_stream import open_blob
from cache.errors import StoreProblem
from cache.run_dir import RUNS
from worker.shown_lines import LINE_LIMIT, ShownLines

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.digest import Digest
    from cache.lmdb_store import LmdbStore

POLL_BYTES = 256 << 10
"""Bytes that one poll reads at most: between two the waiter looks for the lease, and whether it shall stop."""
_PIECE = 64 << 10
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LogTail:
    """Follows the log of one action for one waiting node, from one thread; close it in any case.

    `poll` goes to `lease.acquire`; `finish` is called if the result came from elsewhere.
    """

    def __init__(self, store: LmdbStore, show: Callable[[str], None]) -> None:
        self._store = store
        self._show = show
        self._lines = ShownLines(show)
        self._path = ""
        self._file: int | None = None
        self._partial = b""
        self._taken = 0
        self._hash = blake3()

    def __enter__(self) -> LogTail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self, path: str) -> None:
        """Show what is new in the file that whoever makes the result writes, line by line; "" if it is not known.

        Another file than before is another execution, shown from its beginning. The file never makes it raise.
        """
        if path != self._path and path:
            self._restart()
            self._path = path
        if self._file is None and self._path:
            self._file = self._open(self._path)
        if self._file is None:
            return
        left = POLL_BYTES
        with contextlib.suppress(OSError):
            while left > 0 and (data := os.read(self._file, min(left, _PIECE))):
                left -= len(data)
                self._take(data)

    def finish(self, log: Digest | None) -> None:
        """Show what of the result's log was not shown yet: all of it if what was shown is not how it begins.

        A log that is gone leaves it at what was shown.
        """
        if log is not None:
            with contextlib.suppress(StoreProblem, OSError), open_blob(self._store, log) as file:
                if not self._goes_on(file):
                    self._restart()
                    file.seek(0)
                while data := file.read(_PIECE):
                    self._take(data)
        if self._partial:
            self._lines.add(self._partial)
            self._partial = b""
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._path = ""

    def _goes_on(self, file: IO[bytes]) -> bool:
        """Whether the file begins with what was taken; it is then at the end of that."""
        begin = blake3()
        left = self._taken
        while left and (data := file.read(min(left, _PIECE))):
            left -= len(data)
            begin.update(data)
        return not left and begin.digest() == self._hash.digest()

    def _restart(self) -> None:
        self.close()
        self._lines = ShownLines(self._show)
        self._partial = b""
        self._taken = 0
        self._hash = blake3()

    def _open(self, path: str) -> int | None:
        """The file, if it is one and lies where builds of this store have theirs; None otherwise."""
        with contextlib.suppress(OSError, ValueError):
            runs = os.path.realpath(os.path.join(self._store.directory, RUNS))
            where = os.path.realpath(path)
            if os.path.commonpath([runs, where]) != runs:
                return None
            fd = os.open(where, _OPEN)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
        return None

    def _take(self, data: bytes) -> None:
        """Show the whole lines; the beginning of one waits for its end, unless it is a very long one."""
        self._taken += len(data)
        self._hash.update(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._lines.add(line)
        while len(self._partial) > LINE_LIMIT:
            self._lines.add(self._partial[:LINE_LIMIT])
            self._partial = self._partial[LINE_LIMIT:]
