"""Watchdog: how many streams there may be, and the end of those that do not move."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from cache.server.limits import FIRST_SECONDS, IDLE_SECONDS, MAX_STREAMS, MAX_STREAMS_CALLER, MIN_BYTES
from cache.server.refusal import exhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from cache.server.access import Caller

_LOG = logging.getLogger("buildgraph.server")
_ROUNDS = 10
"""Looks in the time that a stream may be idle."""


class Stream:
    """One that is watched. Whoever moves it says so."""

    def __init__(self, context: grpc.ServicerContext, caller: str) -> None:
        self.context = context
        self.caller = caller
        self.moved = 0
        """Bytes since the beginning; its owner adds to it."""
        self.since = time.monotonic()
        self.before = 0
        self.resting = False
        """The server works; the client is not to blame."""


class Watchdog:
    """May be used by several threads at once."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS, tick: Callable[[], None] = lambda: None) -> None:
        """tick: called now and then, for others who have something to look after."""
        self._idle = idle_seconds
        self._tick = tick
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()
        self._awaiting: dict[grpc.ServicerContext, float] = {}
        """Calls without a message → since when. Changed without a lock, for it is done twice a call: a dict's own
        operations are whole."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def streams(self) -> int:
        """How many there are now."""
        return len(self._streams)

    def awaiting(self, context: grpc.ServicerContext) -> None:
        """The call's first message has to come."""
        self._awaiting[context] = time.monotonic()

    def arrived(self, context: grpc.ServicerContext) -> None:
        """It came, or never will."""
        self._awaiting.pop(context, None)

    @contextlib.contextmanager
    def watch(self, context: grpc.ServicerContext, caller: Caller) -> Iterator[Stream]:
        """Raises Refused: RESOURCE_EXHAUSTED if there are too many."""
        stream = Stream(context, caller.name)
        with self._lock:
            mine = sum(each.caller == caller.name for each in self._streams)
            if len(self._streams) >= MAX_STREAMS or mine >= MAX_STREAMS_CALLER:
                raise exhausted("too many streams at the same time; try again in a moment, with fewer of them")
            self._streams.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)

    def _run(self) -> None:
        while not self._stop.wait(self._idle / _ROUNDS):
            self._look(time.monotonic())
            self._tick()

    def _look(self, now: float) -> None:
        for context, since in list(self._awaiting.items()):
            if now - since > min(self._idle, FIRST_SECONDS):
                _LOG.warning("a call of %s sent no message and was ended", context.peer())
                context.cancel()
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            if stream.resting or stream.moved - stream.before >= MIN_BYTES:
                stream.since, stream.before = now, stream.moved
            elif now - stream.since > self._idle:
                _LOG.warning("a stream of %s did not move for %d s and was ended", stream.caller, self._idle)
                stream.context.cancel()
