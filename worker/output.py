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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.store import Store

MEMORY_LIMIT = 1 << 20
"""Bytes of a log that are held in memory; beyond that it goes to a scratch file."""
LINE_LIMIT = 64 << 10
"""A line that goes on longer is shown and kept in pieces."""
SHOWN_LINES = 200_000
"""Lines of one step that are shown; nobody reads more, and showing them takes longer than making them."""
KEPT_BYTES = 256 << 20
"""Bytes of one step's log; what a step prints beyond that is lost, or it could fill the disk by printing."""
TAIL_LINES = 20
"""Last lines that are kept at hand for the message of a failed step."""
REDACTED = b"[secret]"
REDACT_FROM = 4
"""Secrets and lines of secrets shorter than this are not redacted: they would blot out ordinary text."""


class Output:
    """Collects one step's output from one thread. secrets: values that must not be shown or kept."""

    def __init__(self, store: Store, show: Callable[[str], None], secrets: Iterable[bytes] = ()) -> None:
        self._store = store
        self._show = show
        self._secrets = sorted(_pieces(secrets), key=len, reverse=True)
        self._longest = len(self._secrets[0]) if self._secrets else 0
        self._partial = b""
        self._chunks: list[bytes] = []
        self._size = 0
        self._hash = blake3()
        self._file: int | None = None
        self._path = ""
        self._shown = 0
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

    def keep(self) -> tuple[Digest | None, Batch]:
        """The log's digest, None if nothing was printed, and the batch that puts it into the store."""
        if not self._size:
            return None, Batch()
        digest = Digest(self._hash.hexdigest(), self._size)
        if self._file is None:
            return digest, Batch(blobs={digest: b"".join(self._chunks)})
        os.close(self._file)
        self._file = None
        return digest, Batch(files=(NewFile(digest, self._path),))

    def _lines(self, text: bytes) -> None:
        """Whole lines, without the last one's end."""
        text = self._redact(text)
        self._keep(text + b"\n")
        lines = text.split(b"\n") if self._shown < SHOWN_LINES else text.rsplit(b"\n", TAIL_LINES)[-TAIL_LINES:]
        for line in lines:
            self._tell(line)

    def _line(self, line: bytes, end: bytes) -> None:
        line = self._redact(line)
        self._keep(line + end)
        self._tell(line)

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.tail.append(text)
        self._shown += 1
        if self._shown <= SHOWN_LINES:
            self._show(text)
        elif self._shown == SHOWN_LINES + 1:
            self._show(f"[more than {SHOWN_LINES} lines: the rest is only kept in the log]")

    def _keep(self, data: bytes) -> None:
        if self._size >= KEPT_BYTES:
            return
        if self._size + len(data) > KEPT_BYTES:
            data = data[: KEPT_BYTES - self._size]
        self._hash.update(data)
        self._size += len(data)
        if self._file is not None:
            os.write(self._file, data)
            return
        self._chunks.append(data)
        if self._size > MEMORY_LIMIT:
            self._path = self._store.scratch("log")
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(self._file, b"".join(self._chunks))
            self._chunks.clear()

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
