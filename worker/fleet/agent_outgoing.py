"""Outgoing: messages of a worker that wait for one stream."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buildgraph.v1 import fleet_pb2 as pb

ROOM = 4 << 20
"""Bytes of logs that wait while more of a log is added."""
SEALED_ROOM = 1 << 20
"""The same of sealed messages, so that no step's talk with an agent waits long for another one's."""
MOST_BYTES = 64 << 20
"""Of each of these two, as many threads may find room at the same time; what goes beyond is not taken."""
MOST = 50_000
"""Messages that wait; with more of them the other end takes nothing, and no more are taken for it."""


class _Lane:
    """Messages that leave in the order in which they came. room: bytes, more of which are waited for. size: bytes."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.size = 0
        self.messages: deque[tuple[pb.WorkerMessage, int]] = deque()

    def put(self, message: pb.WorkerMessage) -> None:
        size = message.ByteSize()
        self.messages.append((message, size))
        self.size += size

    def pop(self) -> pb.WorkerMessage:
        message, size = self.messages.popleft()
        self.size -= size
        return message


class Outgoing:
    """gRPC iterates over it in a thread of its own; any thread puts. ended: nothing is taken any more.

    What steps can make much of does not hold up the rest: renewals and the like go first, then logs and sealed messages
    by turns. The end of a lease goes with the logs, since nobody would look at what came of its own after it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._first, self._logs, self._sealed = _Lane(), _Lane(ROOM), _Lane(SEALED_ROOM)
        self._turns = [self._logs, self._sealed]
        self._finishes = False
        self.ended = False

    def put(self, message: pb.WorkerMessage) -> bool:
        """False if it will not be sent."""
        kind = message.WhichOneof("message")
        lane = self._sealed if kind == "sealed" else self._logs if kind in ("log", "done") else self._first
        with self._changed:
            full = len(lane.messages) >= MOST or (kind in ("log", "sealed") and lane.size >= MOST_BYTES)
            if self.ended or self._finishes or full:
                return False
            lane.put(message)
            self._changed.notify_all()
            return True

    def wait_for_room(self, seconds: float, *, sealed: bool = False) -> bool:
        """Whether few bytes of logs, or of sealed messages, wait, at the latest after so long."""
        lane = self._sealed if sealed else self._logs
        until = time.monotonic() + seconds
        with self._changed:
            while not self.ended and lane.size > lane.room:
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
            for lane in (self._first, *self._turns):
                lane.messages.clear()
                lane.size = 0
            self._changed.notify_all()

    def __iter__(self) -> Iterator[pb.WorkerMessage]:
        while True:
            with self._changed:
                while (message := self._next()) is None:
                    if self.ended or self._finishes:
                        return
                    self._changed.wait()
                self._changed.notify_all()
            yield message

    def _next(self) -> pb.WorkerMessage | None:
        if self._first.messages:
            return self._first.pop()
        for lane in self._turns:
            if lane.messages:
                self._turns.sort(key=lambda each: each is lane)
                return lane.pop()
        return None
