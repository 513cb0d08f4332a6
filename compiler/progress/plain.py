"""PlainReporter: lines in groups like docker's, for logs and for terminals that cannot do more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from compiler.progress.events import (
    Announced,
    Ended,
    Finished,
    Placed,
    Printed,
    Started,
    Task,
    Transfer,
    Waiting,
    Warned,
)
from compiler.progress.sink import Sink
from compiler.progress.text import moved_text, printable, seconds_text, summary_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from compiler.progress.events import Event

TURN_SECONDS = 1.0
"""How long a step may go on while others have something to say: switching at each line would bury the output."""
HELD_LINES = 1000
"""Lines that are held back for one step; beyond that it gets its turn at once."""
TRANSFER_SECONDS = 2.0
"""Time between two lines about the same transfer; its end is always told."""


class _Group:
    """A step's lines. held: not yet written. reason: the last one it waited for. told: when a transfer was shown."""

    def __init__(self, number: int, title: str) -> None:
        self.number = number
        self.title = title
        self.began: float | None = None
        self.held: list[str] = []
        self.over = False
        self.reason = ""
        self.told: float | None = None


class PlainReporter:
    """clock: seconds that only grow. turn_seconds: see TURN_SECONDS; 0 writes every line when it comes."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, turn_seconds: float = TURN_SECONDS
    ) -> None:
        self._sink = Sink(stream)
        self._clock = clock
        self._turn_seconds = turn_seconds
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        self._current: _Group | None = None
        self._turn_ends = 0.0
        self._queue: dict[int, _Group] = {}
        self._timer: threading.Timer | None = None
        self._out: list[str] = []
        self._closed = False

    def report(self, event: Event) -> None:
        with self._lock:
            if self._closed:
                return
            self._handle(event)
            self._flush()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._finish()
                self._flush()

    # events

    def _handle(self, event: Event) -> None:
        now = self._clock()
        match event:
            case Announced():
                for info in event.nodes:
                    self._groups.setdefault(info.id, _Group(info.number, printable(info.title)))
            case Started():
                group = self._group(event.id, now)
                # It may have been waiting until now.
                group.began = now
                self._say(group, f"because {printable(event.why)}" if event.why else "")
            case Placed():
                self._say(self._group(event.id, now), f"on {printable(event.where)}")
            case Printed():
                group = self._group(event.id, now)
                self._say(group, f"{now - (group.began or now):.3f} {printable(event.line)}")
            case Finished():
                group = self._group(event.id, now)
                group.over = True
                self._say(group, _verdict(event, now - (group.began or now)))
            case Waiting() | Transfer():
                self._tell(event, now)
            case Task():
                group = self._group(f"task {event.name}", now, event.name)
                group.over = event.status != "started"
                word = "DONE" if event.status == "done" else "ERROR"
                self._say(group, f"{word} {seconds_text(event.seconds)}" if group.over else "")
            case Warned():
                self._leave()
                self._out += [f"WARNING: {event.text}", ""]
            case Ended():
                self._finish()
                self._out.append(summary_text(event.ok, event.seconds, event.hits, event.ran))

    def _tell(self, event: Waiting | Transfer, now: float) -> None:
        group = self._group(event.id, now)
        if group.over:
            return
        if isinstance(event, Waiting):
            if event.reason != group.reason:
                self._say(group, f"waiting: {printable(event.reason)}")
            group.reason = event.reason
            return
        if group.told is None:
            group.told = now
        if event.done == event.total or now - group.told >= TRANSFER_SECONDS:
            group.told = now
            self._say(group, f"transferred {moved_text(event.done, event.total)}")

    def _group(self, name: str, now: float, title: str = "") -> _Group:
        group = self._groups.get(name)
        if group is None:
            number = max((other.number for other in self._groups.values()), default=0) + 1
            group = self._groups[name] = _Group(number, printable(title or name))
        if group.began is None:
            group.began = now
        return group

    # turns

    def _say(self, group: _Group, line: str = "") -> None:
        if line:
            group.held.append(line)
        if group is self._current:
            self._show(group)
        else:
            self._queue[group.number] = group
        self._take_turns(force=len(group.held) > HELD_LINES)

    def _take_turns(self, force: bool = False) -> None:
        while self._queue and (force or self._current is None or self._clock() >= self._turn_ends):
            self._show(self._queue.pop(next(iter(self._queue))))
        if self._queue and self._timer is None:
            self._timer = threading.Timer(max(0.01, self._turn_ends - self._clock()), self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
            if not self._closed:
                self._take_turns()
                self._flush()

    def _show(self, group: _Group) -> None:
        if group is not self._current:
            self._leave()
            self._out.append(f"#{group.number} {group.title}")
            self._current = group
            self._turn_ends = self._clock() + self._turn_seconds
        self._out += [f"#{group.number} {line}" for line in group.held]
        group.held.clear()
        if group.over:
            self._out.append("")
            self._current = None

    def _leave(self) -> None:
        """Interrupt the step whose turn it is."""
        if self._current is not None:
            self._out += [f"#{self._current.number} ...", ""]
            self._current = None

    def _finish(self) -> None:
        """Write all that is held back, and close the groups that nobody closed."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._take_turns(force=True)
        for group in self._groups.values():
            if group.began is not None and not group.over:
                group.over = True
                group.held.append("CANCELED")
                self._show(group)

    def _flush(self) -> None:
        lines = [line for text in self._out for line in text.split("\n")]
        self._sink.write("".join(f"{printable(line)}\n" for line in lines))
        self._out.clear()


def _verdict(event: Finished, measured: float) -> str:
    note = printable(event.note)
    behind = f" ({note})" if note else ""
    match event.status:
        case "done":
            return f"DONE {seconds_text(event.seconds or measured)}{behind}"
        case "cached":
            return f"CACHED{behind}"
        case "failed":
            return f"ERROR: {note}" if note else f"ERROR after {seconds_text(event.seconds or measured)}"
    return f"CANCELED{behind}"
