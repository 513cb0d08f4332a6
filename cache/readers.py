"""Readers: every open store registers itself, so that nothing is removed that it may still read."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS = "readers"


class Reader:
    """A file in `STORE/readers/`, locked while it lives; the kernel drops the lock with the process.

    It holds the number of the last transaction that had been committed when the reader began; as long as it is empty
    the reader counts as older than everything.
    """

    def __init__(self, store: str) -> None:
        """Make it before anything is read. Raises OSError."""
        directory = os.path.join(store, READERS)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.name = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._path = os.path.join(directory, self.name)
        with _gate(directory, fcntl.LOCK_SH):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def began_at(self, transaction: int) -> None:
        with contextlib.suppress(OSError):  # on a full disk it stays older than everything
            os.pwrite(self._fd, b"%d\n" % transaction, 0)

    def close(self) -> None:
        # In this order: to unlink an open file costs ten times as much. Whoever takes it for dead meanwhile is right.
        os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class Live(NamedTuple):
    """A reader that is alive. transaction: nothing that was condemned in a later one may be taken from it. since:
    seconds since the epoch."""

    name: str
    pid: int
    transaction: int
    since: float


def live_readers(store: str, but: str = "") -> list[Live]:
    """All readers that live now, oldest first, but the one of that name. Raises OSError."""
    directory = os.path.join(store, READERS)
    found = []
    for name in os.listdir(directory):
        if name != but:
            reader = _look(directory, name)
            if reader is not None:
                found.append(reader)
    return sorted(found, key=lambda reader: reader.since)


@contextlib.contextmanager
def alone(store: str, but: str) -> Iterator[list[Live]]:
    """While this is held no reader begins; gives those that live. Hold it for an instant. Raises OSError."""
    directory = os.path.join(store, READERS)
    with _gate(directory, fcntl.LOCK_EX):
        yield live_readers(store, but)


def sweep_readers(store: str) -> None:
    """Remove what killed processes left."""
    directory = os.path.join(store, READERS)
    with contextlib.suppress(OSError), _gate(directory, fcntl.LOCK_EX):
        for name in os.listdir(directory):
            if _look(directory, name) is None:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))


def _look(directory: str, name: str) -> Live | None:
    try:
        fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # One that is just being made has read nothing yet: it will see whatever is committed by now.
        return None
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        pid = name.partition("-")[0]
        transaction = int(text) if text.isdigit() else 0
        return Live(name, int(pid) if pid.isdigit() else 0, transaction, os.fstat(fd).st_mtime)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _gate(directory: str, how: int) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)
