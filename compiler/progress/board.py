"""Board: what the live view shows of a build at a moment; no clock, no terminal."""

from __future__ import annotations

from collections import deque
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
from compiler.progress.rows import Marks, Part, Row
from compiler.progress.text import moved_text, printable, seconds_text, size_text, summary_text

if TYPE_CHECKING:
    from compiler.progress.events import Event

LIVE_LINES = 4
"""Last lines of output under a running step."""
FAILED_LINES = 10
"""Last lines of output under a failed step."""
FRAME_SECONDS = 0.1
"""Time between two pictures; the spinner goes on by one each time."""


class _Running:
    """A step or task that goes on. moved: how far its transfer is. reason: what it waits for. why: it runs at all."""

    def __init__(self, title: str, began: float) -> None:
        self.title = title
        self.began = began
        self.lines: deque[str] = deque(maxlen=FAILED_LINES)
        self.reason = ""
        self.moved = ""
        self.why = ""


class Board:
    """Events in; rows out: those of finished steps once, for above, and those of the running ones for each picture."""

    def __init__(self, began: float, marks: Marks) -> None:
        """began: when the build began, by the clock that `apply` and `live` are told the time by."""
        self._began = began
        self._marks = marks
        self._titles: dict[str, str] = {}
        self._running: dict[str, _Running] = {}
        self._over: set[str] = set()
        self._cached = 0
        self._rows: list[Row] = []
        self._stopped = False

    def apply(self, event: Event, now: float) -> None:
        """Take an event; what comes after the end, as from threads that were interrupted, is left out."""
        if self._stopped:
            return
        match event:
            case Announced():
                self._titles.update((info.id, _tidy(info.title)) for info in event.nodes)
            case Finished():
                if event.id not in self._over:
                    self._over.add(event.id)
                    self._finished(event, now)
            case Task():
                self._task(event, now)
            case Warned():
                lines = f"WARNING: {event.text}".split("\n")
                self._rows += [Row((Part(_tidy(line), "yellow"),), whole=True) for line in lines]
            case Ended():
                self.stop()
                text = summary_text(event.ok, event.seconds, event.hits, event.ran)
                self._rows.append(Row((Part(text, "bold" if event.ok else "red"),)))
            case Started() | Placed() | Printed() | Waiting() | Transfer():
                # A late line of another thread must not bring a finished step back.
                if event.id not in self._over:
                    self._going_on(event, now)

    def _going_on(self, event: Started | Placed | Printed | Waiting | Transfer, now: float) -> None:
        step = self._running.setdefault(event.id, _Running(self._title(event.id), now))
        match event:
            case Started():
                step.began = now
                step.reason = ""
                step.why = f"because {_tidy(event.why)}" if event.why else ""
            case Printed():
                # Most lines are never shown, so they are made printable when they are.
                step.lines.append(event.line)
            case Waiting():
                step.reason = event.reason
            case Placed():
                step.reason = f"on {event.where}"
            case Transfer():
                step.moved = moved_text(event.done, event.total)

    def _finished(self, event: Finished, now: float) -> None:
        step = self._running.pop(event.id, None) or _Running(self._title(event.id), now)
        note = _tidy(event.note)
        title = Part(step.title)
        seconds = event.seconds or now - step.began
        match event.status:
            case "done":
                size = f"{size_text(event.size)}  " if event.size else ""
                mark = Part(f"{self._marks.done} ", "green")
                self._rows.append(Row((mark, title), note or step.why, f"{size}{seconds_text(seconds):>6}"))
            case "cached":
                self._cached += 1
                mark = Part(f"{self._marks.done} CACHED ", "cyan")
                self._rows.append(Row((mark, title), note))
            case "failed":
                mark = Part(f"{self._marks.failed} ", "red")
                self._rows.append(Row((mark, title), note, f"{seconds_text(seconds):>6}"))
                self._rows += [Row((Part(f"    {_tidy(line)}"),), whole=True) for line in step.lines]
            case "cancelled":
                self._cancelled(step)

    def _cancelled(self, step: _Running) -> None:
        self._rows.append(Row((Part(f"{self._marks.stopped} CANCELED ", "yellow"), Part(step.title))))

    def _task(self, event: Task, now: float) -> None:
        key = f"task {event.name}"
        if event.status == "started":
            self._running[key] = _Running(_tidy(event.name), now)
            return
        self._running.pop(key, None)
        good = event.status == "done"
        mark = Part(f"{self._marks.done} ", "green") if good else Part(f"{self._marks.failed} ", "red")
        self._rows.append(Row((mark, Part(_tidy(event.name))), right=f"{seconds_text(event.seconds):>6}"))

    def _title(self, node_id: str) -> str:
        return self._titles.get(node_id) or _tidy(node_id)

    def stop(self) -> None:
        """The build is over, also for what still runs."""
        for step in self._running.values():
            self._cancelled(step)
        self._running.clear()
        self._stopped = True

    def take(self) -> list[Row]:
        """Rows to write above the live ones, each given once."""
        rows, self._rows = self._rows, []
        return rows

    def live(self, now: float, height: int) -> list[Row]:
        """The header and what is running, in less than `height` rows, so that nothing scrolls away half drawn."""
        elapsed = now - self._began
        counts = f"{len(self._over & self._titles.keys())}/{len(self._titles)}"
        cached = f", {self._cached} cached" if self._cached else ""
        rows = [Row((Part(f"[+] Building {seconds_text(elapsed)} ({counts}{cached})", "bold"),))]
        busy = self._marks.busy[int(elapsed / FRAME_SECONDS) % len(self._marks.busy)]
        room = max(1, height - 2)
        steps = list(self._running.values())
        shown = steps if len(steps) <= room else steps[: room - 1]
        lines = min(LIVE_LINES, (room - len(shown)) // len(shown)) if len(shown) == len(steps) and shown else 0
        for step in shown:
            rows.append(self._live_row(step, busy, now))
            # [-0:] would be all of them.
            rows += [Row((Part(f"    {_tidy(line)}", "dim"),)) for line in list(step.lines)[-lines:] if lines]
        if len(shown) < len(steps):
            rows.append(Row((Part(f"  and {len(steps) - len(shown)} more", "dim"),)))
        return rows

    def _live_row(self, step: _Running, busy: str, now: float) -> Row:
        moved = f"{step.moved}  " if step.moved else ""
        left = (Part(f"{busy} ", "cyan"), Part(step.title))
        return Row(left, _tidy(step.reason), f"{moved}{seconds_text(now - step.began):>6}")


def _tidy(text: str) -> str:
    return printable(text).expandtabs(8)
