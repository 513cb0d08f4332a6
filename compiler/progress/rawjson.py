"""RawJsonReporter: one JSON object a line for programs; docs/progress.md describes them."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from compiler.progress.events import Announced, Transfer
from compiler.progress.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from compiler.progress.events import Event

VERSION = 1
"""Goes up when a field changes its meaning or disappears; new fields and new events may come without."""
TRANSFER_SECONDS = 0.1
"""Time between two events about the same transfer; its end is always told."""


class RawJsonReporter:
    """clock: seconds since the epoch."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._sink = Sink(stream)
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def report(self, event: Event) -> None:
        with self._lock:
            now = self._clock()
            if isinstance(event, Transfer) and not self._is_due(event, now):
                return
            head = {"version": VERSION, "time": round(now, 6), "event": type(event).__name__.lower()}
            self._sink.write(json.dumps({**head, **_fields(event)}, separators=(",", ":")) + "\n")

    def _is_due(self, event: Transfer, now: float) -> bool:
        # A clock that was set back must not silence a transfer.
        since = abs(now - self._told.get(event.id, 0.0))
        if since < TRANSFER_SECONDS and event.done != event.total:
            return False
        self._told[event.id] = now
        return True

    def close(self) -> None:
        """Every line was written when its event came."""


def _fields(event: Event) -> dict[str, Any]:
    if isinstance(event, Announced):
        return {"nodes": [{name: _whole(value) for name, value in node._asdict().items()} for node in event.nodes]}
    return {name: _whole(value) for name, value in event._asdict().items()}


def _whole(value: object) -> object:
    """Floats to the microsecond; half a surrogate pair, which most JSON readers refuse, becomes U+FFFD."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return [_whole(each) for each in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
