"""Outbox: messages that wait for one stream; whoever puts one never waits for the other end."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from worker.fleet.service_limits import MAX_MESSAGES, MAX_SEALED

if TYPE_CHECKING:
    import grpc

Message = TypeVar("Message")


class End(NamedTuple):
    """How a stream ends. code: None for well."""

    code: grpc.StatusCode | None
    text: str


class Outbox(Generic[Message]):
    """May be used by several threads at once; one of them takes. limit: messages; more end the stream, for its other
    end takes nothing. Sealed messages have a bound of their own, in bytes."""

    def __init__(self, limit: int = MAX_MESSAGES) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._messages: deque[tuple[Message, int]] = deque()
        self._sealed = 0
        self._end: End | None = None
        self._finishes = False
        self._since: float | None = None
        """When the last message was given to the stream, which has not come back for another one since."""

    def put(self, message: Message) -> None:
        """Without effect after the end."""
        with self._changed:
            if self._end is not None:
                return
            if len(self._messages) >= self._limit:
                self._end = End(_exhausted(), "too many messages wait for this stream; open it again, and read them")
            else:
                self._messages.append((message, 0))
            self._changed.notify_all()

    def put_sealed(self, message: Message, size: int) -> bool:
        """False if too many bytes wait already: it is not sent."""
        with self._changed:
            if self._end is not None or self._sealed + size > MAX_SEALED or len(self._messages) >= self._limit:
                return False
            self._sealed += size
            self._messages.append((message, size))
            self._changed.notify_all()
            return True

    def finish(self) -> None:
        """End well once everything was taken."""
        with self._changed:
            self._finishes = True
            self._changed.notify_all()

    def end(self, code: grpc.StatusCode | None = None, text: str = "") -> None:
        """End at once; the first end counts."""
        with self._changed:
            if self._end is None:
                self._end = End(code, text)
            self._messages.clear()
            self._changed.notify_all()

    @property
    def ended(self) -> End | None:
        return self._end

    def take(self) -> Message | None:
        """The next message, waited for; None at the end."""
        with self._changed:
            self._since = None
            while self._end is None:
                message = self._next(time.monotonic())
                if message is not None:
                    self._since = time.monotonic()
                    self._changed.notify_all()
                    return message
                if self._finishes and self._is_empty():
                    self._end = End(None, "")
                    self._changed.notify_all()
                    break
                self._changed.wait(self._patience())
        return None

    def is_stuck(self, now: float, seconds: float) -> bool:
        """The other end has not taken what it was given for so long. now: of time.monotonic."""
        since = self._since
        return since is not None and now - since > seconds

    def wait_for_room(self, messages: int) -> None:
        """Until not more of them wait, or the end. For the thread that reads the same stream only."""
        with self._changed:
            while self._end is None and len(self._messages) > messages:
                self._changed.wait()

    def wait_for_end(self, seconds: float) -> None:
        """Until the end, or so long."""
        with self._changed:
            if self._end is None:
                self._changed.wait(seconds)

    # what wakes it, and what else it has

    def wake(self) -> None:
        """There may be something new."""
        with self._changed:
            self._changed.notify_all()

    def _next(self, now: float) -> Message | None:
        del now
        if not self._messages:
            return None
        message, size = self._messages.popleft()
        self._sealed -= size
        return message

    def _is_empty(self) -> bool:
        return not self._messages

    def _patience(self) -> float | None:
        """Seconds after which to look again though nothing was put."""
        return None


def _exhausted() -> grpc.StatusCode:
    import grpc

    return grpc.StatusCode.RESOURCE_EXHAUSTED
