"""LogFeed: sends what a step prints, as its log's file has it, in pieces; from the beginning again if it has to."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

if TYPE_CHECKING:
    from worker.fleet.agent_outgoing import Outgoing

PIECE = 64 << 10
"""Bytes of one message."""
FLUSH_SECONDS = 5.0
"""How long the end of a step waits until its log is on the way; the rest comes with the result alone."""


class LogFeed:
    """Of one lease. Threads may call all methods at the same time. path: of the log's file; "" as long as none is."""

    def __init__(self, lease: str) -> None:
        self._lease = lease
        self._lock = threading.Lock()
        self._fd: int | None = None
        self.path = ""
        self._to: Outgoing | None = None
        self._sent = 0
        self._closed = False

    def follow(self, path: str) -> None:
        """path: where the log will be, from the first line on."""
        self.path = path

    def send(self, outgoing: Outgoing, seconds: float = 0.0) -> None:
        """What is new; all of it if there is room within so long. To another stream than before everything: who is at
        its other end may have nothing of it. Without such a time it never waits, also not for another call."""
        until = time.monotonic() + seconds
        if not self._lock.acquire(blocking=seconds > 0):
            return
        try:
            if outgoing is not self._to:
                self._to, self._sent = outgoing, 0
            while outgoing.wait_for_room(max(0.0, until - time.monotonic())):
                data = self._read()
                if not data:
                    return
                piece = pb.WorkerMessage.LeaseLog(lease=self._lease, offset=self._sent, data=data)
                if not outgoing.put(pb.WorkerMessage(log=piece)):
                    return
                self._sent += len(data)
        finally:
            self._lock.release()

    def _read(self) -> bytes:
        if self._closed or not self.path:
            return b""
        try:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._fd, PIECE, self._sent)
        except OSError:  # nothing was printed yet, or it cannot be followed
            return b""

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._fd is not None:
                with contextlib.suppress(OSError):
                    os.close(self._fd)
                self._fd = None
