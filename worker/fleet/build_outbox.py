"""BuildOutbox: what a build is told, and the logs that it follows at its own pace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from buildgraph.v1 import fleet_pb2 as pb

from worker.fleet.log_buffer import left_out
from worker.fleet.outbox import Outbox
from worker.fleet.service_limits import DRAIN_SECONDS, LOG_PIECE, LOG_TAIL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.fleet.log_buffer import LogBuffer


class _Reading:
    """One action's log, how far it was sent, and what is said after it. lease: whose it is. anew: it takes the place of
    another one, which is still to be said. until: when the rest is not waited for."""

    def __init__(self, log: LogBuffer | None, lease: str = "", *, anew: bool = False) -> None:
        self.log = log
        self.lease = lease
        self.anew = anew
        self.at = 0
        self.last: pb.BuildEvent | None = None
        self.until = 0.0


class BuildOutbox(Outbox[pb.BuildEvent]):
    """States come first, in order; logs when there are no states; the end of an action after its log.

    A log is read from where it is kept, so that nobody who reads slowly fills the memory.
    """

    def __init__(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        super().__init__()
        self._drain_seconds = drain_seconds
        self._readings: dict[str, _Reading] = {}
        """By action's key; the one that was served last stands last."""

    def follow(self, key: str, lease: str, log: LogBuffer) -> None:
        """Send this lease's log of the action from its start, in place of the one that was followed, if any was."""
        with self._changed:
            if self._end is not None:
                return
            old = self._readings.get(key)
            if old is not None and old.log is log:
                return
            self._readings.pop(key, None)
            log.hold(self.wake)
            self._readings[key] = _Reading(log, lease, anew=old is not None and old.log is not None)
            self._changed.notify_all()
        if old is not None and old.log is not None:
            old.log.let_go(self.wake)

    def settle(self, key: str, last: pb.BuildEvent) -> None:
        """Nothing more comes of the action but the rest of its log, and this."""
        with self._changed:
            if self._end is not None:
                return
            reading = self._readings.setdefault(key, _Reading(None))
            reading.last = last
            reading.until = time.monotonic() + self._drain_seconds
            self._changed.notify_all()

    def drop(self, key: str) -> None:
        """Nothing more of this log."""
        with self._changed:
            reading = self._readings.pop(key, None)
        self._release(() if reading is None else (reading,))

    def close(self) -> None:
        """Let go of all logs; the stream is over."""
        with self._changed:
            readings, self._readings = tuple(self._readings.values()), {}
        self._release(readings)

    def _release(self, readings: Iterable[_Reading]) -> None:
        for reading in readings:
            if reading.log is not None:
                reading.log.let_go(self.wake)

    def _next(self, now: float) -> pb.BuildEvent | None:
        message = super()._next(now)
        if message is not None:
            return message
        for key, reading in self._readings.items():
            log = reading.log
            unread = 0 if log is None else log.size - reading.at
            if log is not None and (unread or reading.anew):
                data = b""
                if reading.last is not None and now >= reading.until and unread > LOG_TAIL:
                    data = self._skip(reading, log, unread - LOG_TAIL)
                piece = log.read(reading.at, LOG_PIECE)
                reading.at += len(piece)
                reading.anew = False
                self._readings[key] = self._readings.pop(key)
                return pb.BuildEvent(log=pb.ActionLog(key=key, data=data + piece, lease=reading.lease))
            if reading.last is not None:
                del self._readings[key]
                self._release((reading,))
                return reading.last
        return None

    def _skip(self, reading: _Reading, log: LogBuffer, count: int) -> bytes:
        """Leave out so many bytes, and some more up to the end of a line; what to say of it."""
        rest = log.read(reading.at + count, LOG_PIECE)
        count += rest.find(b"\n") + 1
        before = log.read(reading.at - 1, 1) if reading.at else b"\n"
        reading.at += count
        return left_out(count) if before == b"\n" else b"\n" + left_out(count)

    def _is_empty(self) -> bool:
        return not self._messages and not any(reading.last is not None for reading in self._readings.values())
