"""Lease: the right of one process to make one action's result, held by a file lock that dies with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from cache.errors import StoreProblem
from cache.named_lock import stands

if TYPE_CHECKING:
    from collections.abc import Callable

LEASES = "leases"
POLL_SECONDS = 0.02
"""How often a waiter looks again; the kernel offers no lock that is both awaitable and cancellable."""
MAX_NOTE = 4096
"""Bytes of a holder's note, more than any path has."""


class Lease:
    """Holds `STORE/leases/KEY` until `release`. A killed holder loses it at once, so no lease is held for ever."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd

    def tell(self, note: str) -> None:
        """Leave a line for those who wait: `acquire` hands it to their `poll`. The last one counts."""
        data = note.encode("utf-8", "surrogateescape") + b"\n"
        # It helps others, no more: what cannot be written, or is no line, is not told.
        if len(data) <= MAX_NOTE and b"\n" not in data[:-1]:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, data, 0)

    def release(self) -> None:
        # Unlinked while still locked: whoever locks the old file next sees that its name is gone and tries anew.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._fd)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def acquire(
    store: str,
    key: str,
    *,
    cancelled: Callable[[], bool],
    waiting: Callable[[], None] = lambda: None,
    poll: Callable[[str], None] = lambda _: None,
) -> Lease | None:
    """Wait for the lease on a key; None when `cancelled` became true. `waiting` is called once if somebody has it.

    poll: called each time that somebody else was found to have it, with the note that the holder told, "" for none.
    Threads of one process exclude each other too. Raises StoreProblem, and what waiting and poll raise.
    """
    directory = os.path.join(store, LEASES)
    path = os.path.join(directory, key)
    told = False
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        while not cancelled():
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note = _note(fd)
                os.close(fd)
                if not told:
                    told = True
                    waiting()
                poll(note)
                time.sleep(POLL_SECONDS)
                continue
            if stands(path, fd):
                os.ftruncate(fd, 0)  # a killed holder's note would be taken for ours
                return Lease(path, fd)
            os.close(fd)
    except OSError as error:
        raise StoreProblem(f"cannot write to the store {store}: {error.strerror}") from None
    return None


def _note(fd: int) -> str:
    """What the holder told; nothing while it is still being written."""
    text, end, _ = os.pread(fd, MAX_NOTE, 0).partition(b"\n")
    return text.decode("utf-8", "surrogateescape") if end else ""


def sweep_leases(store: str) -> None:
    """Remove what killed holders left: files that nobody has locked."""
    directory = os.path.join(store, LEASES)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stands(path, fd):
                        os.unlink(path)
                finally:
                    os.close(fd)
