"""Output: what a step prints, line by line to whoever watches and whole into the store, without secrets."""

from __future__ import annotations

import functools
import os
import re
from collections import deque
from typing import TYPE_CHECKING

from blake3 import blake3

from cache.digest import Digest
from cache.store import Batch, NewFile
from worker.shown_lines import LINE_LIMIT, ShownLines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.store import Store

MEMORY_LIMIT = 1 << 20
"""Bytes of a log that are held in memory as well; a small log's blob is made of them, a large one's of the file."""
KEPT_BYTES = 256 << 20
"""Bytes of one step's log; what a step prints beyond that is lost, or it could fill the disk by printing."""
TAIL_LINES = 20
"""Last lines that are kept at hand for the message of a failed step."""
REDACTED = b"[secret]"
REDACT_FROM = 4
"""Secrets and lines of secrets shorter than this are not redacted: they would blot out ordinary text."""


class Output:
    """Collects one step's output from one thread. secrets: values that must not be shown or kept.

    live_path: a file that has, from the first line on, what the log has so far, for others to follow; it need not
    be there. What was written to it never changes.
    """

    def __init__(self, store: Store, show: Callable[[str], None], secrets: Iterable[bytes] = ()) -> None:
        self._store = store
        self._lines_shown = ShownLines(show)
        self._secrets = sorted(_pieces(secrets), key=len, reverse=True)
        self._longest = len(self._secrets[0]) if self._secrets else 0
        self._partial = b""
        self._chunks: list[bytes] = []
        self._size = 0
        self._hash = blake3()
        self._file: int | None = None
        self._followed = True
        self._ended = True
        self.live_path = store.scratch("log")
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def read_from(self, fd: int) -> None:
        """Take everything until the last writer is gone. Raises OSError, for a full disk among others."""
        while chunk := os.read(fd, 64 << 10):
            whole, newline, self._partial = (self._partial + chunk).rpartition(b"\n")
            if newline:
                self._lines(whole)
            if len(self._partial) > LINE_LIMIT + self._longest:
                cut = self._cut(self._partial)
                self._line(self._partial[:cut], b"")
                self._partial = self._partial[cut:]
        if self._partial:
            self._line(self._partial, b"")
            self._partial = b""

    def say(self, line: str) -> None:
        """Add a line that is not the command's own; on a new one, since the command's last may have no end. OSError."""
        if self._size and not self._ended:
            self._keep(b"\n")
        self._line(line.encode("utf-8", "surrogateescape"), b"\n")

    def keep(self) -> tuple[Digest | None, Batch]:
        """The log's digest, None if nothing was printed, and the batch that puts it into the store."""
        if not self._size:
            return None, Batch()
        digest = Digest(self._hash.hexdigest(), self._size)
        self.close()
        if self._size <= MEMORY_LIMIT:
            return digest, Batch(blobs={digest: b"".join(self._chunks)})
        return digest, Batch(files=(NewFile(digest, self.live_path),))

    def close(self) -> None:
        """Nothing more comes; what was collected stays. May be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lines(self, text: bytes) -> None:
        """Whole lines, without the last one's end."""
        text = self._redact(text)
        self._keep(text + b"\n")
        lines = text.split(b"\n") if not self._lines_shown.is_full else text.rsplit(b"\n", TAIL_LINES)[-TAIL_LINES:]
        for line in lines:
            self._tell(line)

    def _line(self, line: bytes, end: bytes) -> None:
        line = self._redact(line)
        self._keep(line + end)
        self._tell(line)

    def _tell(self, line: bytes) -> None:
        self.tail.append(self._lines_shown.add(line))

    def _keep(self, data: bytes) -> None:
        data = data[: KEPT_BYTES - self._size]
        self._ended = data.endswith(b"\n") if data else self._ended
        self._hash.update(data)
        self._size += len(data)
        if self._size <= MEMORY_LIMIT:
            self._chunks.append(data)
            self._let_follow(data)
            return
        if self._size - len(data) <= MEMORY_LIMIT:
            self._spill()
        self._write(data)

    def _let_follow(self, data: bytes) -> None:
        """Write to the file what memory has too. A failure costs those who follow, not the step."""
        if self._followed:
            try:
                self._write(data)
            except OSError:
                self._followed = False

    def _spill(self) -> None:
        """From here on only the file has the log; it gets what it lacks."""
        if not self._followed:
            self.close()
            self._open(0)  # and writes again what is there: whoever reads it sees no change
            self._write(b"".join(self._chunks))
        self._chunks.clear()

    def _open(self, flags: int) -> int:
        self._file = os.open(self.live_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        return self._file

    def _write(self, data: bytes) -> None:
        fd = self._open(os.O_EXCL) if self._file is None else self._file
        view = memoryview(data)
        while view:  # a disk that becomes full takes a part first
            view = view[os.write(fd, view) :]

    def _cut(self, line: bytes) -> int:
        """Where to cut a long line: what could be the beginning of a secret is kept back, and none is cut in two."""
        cut = len(line) - self._longest
        if any(secret in line for secret in self._secrets):
            for match in self._pattern.finditer(line):
                if match.start() >= cut:
                    break
                cut = max(cut, match.end())
        return cut

    def _redact(self, data: bytes) -> bytes:
        # Looking for each is faster than the pattern, and hardly any line has one.
        if any(secret in data for secret in self._secrets):
            return self._pattern.sub(REDACTED, data)
        return data

    @functools.cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        """Any secret; of those that begin alike the longest."""
        return re.compile(b"|".join(map(re.escape, self._secrets)))


def _pieces(secrets: Iterable[bytes]) -> set[bytes]:
    pieces = set()
    for secret in secrets:
        for line in secret.split(b"\n"):
            if len(line.strip()) >= REDACT_FROM:
                pieces.add(line.strip())
    return pieces
