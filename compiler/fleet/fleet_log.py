"""FleetLog: what a command prints on a worker: shown line by line as it comes, kept if it all came."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cache.digest import Digest
from worker.shown_lines import LINE_LIMIT, ShownLines

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 1 << 20
"""Bytes of a log that are held in memory; of a longer one the blob is fetched where it is needed."""
FOLLOWED = 64 << 20
"""Bytes of the file that builds on the same store follow."""


class FleetLog:
    """The log of one action, from one thread. `live_path`: a file that others may follow, as `Output` has it."""

    def __init__(self, path: str, show: Callable[[str], None]) -> None:
        self.live_path = path
        self._lines = ShownLines(show)
        self._file: int | None = None
        self._skip = 0
        self._begin()

    def _begin(self) -> None:
        self._taken = 0
        self._partial = b""
        self._kept: list[bytes] | None = []

    def restart(self) -> None:
        """The command begins again elsewhere."""
        self._flush()
        self._skip = 0
        self._begin()

    def replay(self) -> None:
        """What follows is the same command's log from its beginning: what is known of it is not shown again."""
        self._skip = self._taken

    def add(self, data: bytes) -> None:
        """Some more, with the ends of its lines."""
        if self._skip:
            known = min(self._skip, len(data))
            self._skip -= known
            data = data[known:]
        self._taken += len(data)
        if self._kept is not None:
            self._kept.append(data)
            if self._taken > KEPT:
                self._kept = None
        self._follow(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        for line in whole:
            self._lines.add(line)
        while len(self._partial) > LINE_LIMIT:
            self._lines.add(self._partial[:LINE_LIMIT])
            self._partial = self._partial[LINE_LIMIT:]

    def whole(self, log: Digest) -> bytes | None:
        """All of it, if what came is the log that the result has."""
        if self._kept is None or self._taken != log.size:
            return None
        data = b"".join(self._kept)
        return data if Digest.of(data) == log else None

    def complete(self, data: bytes) -> None:
        """All of the log: what did not come of it, because a stream broke or nobody watched, is shown now. Not if what
        came is something else, such as a log of which the middle was left out."""
        known = None if self._kept is None else b"".join(self._kept)
        if known is not None and data.startswith(known):
            self._skip = 0
            self.add(data[len(known) :])

    def close(self) -> None:
        """Nothing more comes."""
        self._flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        with contextlib.suppress(OSError):
            os.unlink(self.live_path)

    def _flush(self) -> None:
        if self._partial:
            self._lines.add(self._partial)
            self._partial = b""

    def _follow(self, data: bytes) -> None:
        """A failure costs those who follow, not the step."""
        if self._taken > FOLLOWED:
            return
        with contextlib.suppress(OSError):
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(self.live_path, flags, 0o600)
            os.write(self._file, data)
