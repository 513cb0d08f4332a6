"""Outgoing: messages of a worker that wait for one stream."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buildgraph.v1 import fleet_pb2 as pb

ROOM = 64
"""Messages that wait while more of a log is added: 4 MiB."""
MOST = 50_000
"""Messages that wait; with more of them the other end takes nothing, and the stream is given up."""


class Outgoing:
    """gRPC iterates over it in a thread of its own; any thread puts. ended: nothing is taken any more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[pb.WorkerMessage] = deque()
        self._finishes = False
        self.ended = False

    def put(self, message: pb.WorkerMessage) -> bool:
        """False if it will not be sent."""
        with self._changed:
            if self.ended or self._finishes or len(self._messages) >= MOST:
                return False
            self._messages.append(message)
            self._changed.notify_all()
            return True

    def wait_for_room(self, seconds: float) -> bool:
        """Whether few messages wait, at the latest after so long."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self.ended and len(self._messages) > ROOM:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return not self.ended

    def finish(self) -> None:
        """End the stream well, once all is sent."""
        with self._changed:
            self._finishes = True
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing is sent any more."""
        with self._changed:
            self.ended = True
            self._messages.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[pb.WorkerMessage]:
        while True:
            with self._changed:
                while not self._messages:
                    if self.ended or self._finishes:
                        return
                    self._changed.wait()
                message = self._messages.popleft()
                self._changed.notify_all()
            yield message
