"""Chronicle: makes a timeline of what a build reports; no clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.progress.events import Announced, Ended, Finished, NodeInfo, Placed, Started, Task, Waiting
from compiler.progress.text import printable
from compiler.trace.critical import critical_chain
from compiler.trace.lanes import settled
from compiler.trace.timeline import Bar, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compiler.progress.events import Event
    from compiler.trace.timeline import BarStatus

MOST_BARS = 100_000
"""Of one build; what comes then is left out. A build of 1,000 steps has some 1,500."""
MAX_TEXT = 1_000
"""Characters of a reason or note."""
DECIDING: frozenset[BarStatus] = frozenset({"done", "failed", "cancelled"})


class _Step:
    """A node that was begun. attempts: workers that have it, and since when."""

    def __init__(self, event: Started, now: float) -> None:
        self.turn = now
        self.started = event
        self.attempts: dict[str, float] = {}


class Chronicle:
    """Events in, with the seconds since the epoch at which they came; a `Timeline` out."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._last = began
        self._nodes: dict[str, NodeInfo] = {}
        self._steps: dict[str, _Step] = {}
        self._tasks: dict[str, list[float]] = {}
        self._bars: list[Bar] = []
        self._ended: Ended | None = None

    def take(self, event: Event, now: float) -> None:
        """What a program printed and how far a transfer is does not count."""
        self._last = now = max(now, self._last)
        match event:
            case Announced():
                if not self._nodes:
                    self._add(Bar("", "preparing", "preparing", "", self._began, now, "done"))
                self._nodes.update((info.id, info) for info in event.nodes)
            case Started():
                self._close(event.id, now, "again")
                self._steps[event.id] = _Step(event, now)
            case Placed():
                step = self._steps.get(event.id)
                if step is not None:
                    if not event.worker:
                        self._give_up(event.id, step, now)
                    step.attempts.setdefault(event.worker, now)
            case Waiting():
                step = self._steps.get(event.id)
                if step is not None:
                    self._give_up(event.id, step, now)
            case Finished():
                self._finish(event, now)
            case Task():
                self._task(event, now)
            case Ended():
                self._ended = event
            case _:
                pass

    def _give_up(self, name: str, step: _Step, now: float) -> None:
        """Whoever had it has it no more."""
        for worker, start in step.attempts.items():
            self._add(self._bar(name, step, worker, start, now, "again"))
        step.attempts.clear()

    def _close(self, name: str, now: float, status: BarStatus) -> None:
        step = self._steps.pop(name, None)
        if step is not None:
            for worker, start in (step.attempts or {"": step.turn}).items():
                self._add(self._bar(name, step, worker, start, now, status))

    def _finish(self, event: Finished, now: float) -> None:
        step = self._steps.pop(event.id, None)
        if step is None:
            # It was known, or never came so far.
            found = self._bar(event.id, _Step(Started(event.id), now), "", now, now, event.status)
            said = found._replace(key=_text(event.key), reason=_text(event.reason), note=_text(event.note))
            self._add(said._replace(size=event.size))
            return
        attempts = step.attempts or {"": step.turn}
        winner = event.worker if event.worker in attempts else next(reversed(attempts))
        for worker, start in attempts.items():
            if worker != winner:
                self._add(self._bar(event.id, step, worker, start, now, "late"))
        bar = self._bar(event.id, step, winner, attempts[winner], now, event.status)
        self._add(bar._replace(note=_text(event.note), size=event.size))

    def _bar(self, name: str, step: _Step, worker: str, start: float, end: float, status: BarStatus) -> Bar:
        info = self._nodes.get(name, NodeInfo(name, 0, name, "", "step"))
        said = step.started
        return Bar(
            _text(name), _text(info.title), _text(info.kind), _text(worker), start, end, status, _text(said.key),
            _text(said.reason), _text(said.why), waited=max(0.0, start - step.turn),
        )  # fmt: skip

    def _task(self, event: Task, now: float) -> None:
        if event.status == "started":
            self._tasks.setdefault(event.name, []).append(now)
            return
        begun = self._tasks.get(event.name)
        start = begun.pop() if begun else max(self._began, now - event.seconds)
        self._add(_task_bar(event.name, start, now, event.status))

    def _add(self, bar: Bar) -> None:
        if len(self._bars) < MOST_BARS:
            self._bars.append(bar)

    def timeline(self) -> Timeline:
        """So far; what still goes on was cancelled."""
        now = self._last
        for name in list(self._steps):
            self._close(name, now, "cancelled")
        for name, begun in self._tasks.items():
            for start in begun:
                self._add(_task_bar(name, start, now, "cancelled"))
        self._tasks.clear()
        bars = _settled(sorted(self._bars, key=lambda bar: (bar.start, bar.end, bar.node)))
        inputs = {_text(name): tuple(map(_text, info.inputs)) for name, info in self._nodes.items()}
        decided = [bar for bar in bars if bar.node and bar.status in DECIDING and bar.end > bar.start]
        spans = {bar.node: (bar.start, bar.end) for bar in decided}
        end = self._ended
        return Timeline(
            bars, inputs, critical_chain(spans, inputs), self._began, now,
            end is not None and end.ok, end.digest if end is not None else "", end.hits if end is not None else 0,
            end.ran if end is not None else 0, end is not None,
        )  # fmt: skip


def _settled(bars: list[Bar]) -> tuple[Bar, ...]:
    """With the bars of each worker cut where its next begins."""
    rows: dict[str, list[int]] = {}
    for number, bar in enumerate(bars):
        if bar.worker:
            rows.setdefault(bar.worker, []).append(number)
    for numbers in rows.values():
        spans = settled([(bars[number].start, bars[number].end) for number in numbers])
        for number, (_, end) in zip(numbers, spans, strict=True):
            bars[number] = bars[number]._replace(end=end)
    return tuple(bars)


def chronicle(events: Iterable[tuple[float, Event]], began: float) -> Timeline:
    """Of a whole build. events: seconds since the epoch, and what was reported then."""
    made = Chronicle(began)
    for now, event in events:
        made.take(event, now)
    return made.timeline()


def _task_bar(name: str, start: float, end: float, status: BarStatus) -> Bar:
    text = _text(name)
    return Bar("", text, text.partition(" ")[0] or "task", "", start, end, status)


def _text(text: str) -> str:
    """One line that every reader of JSON and protobuf takes."""
    text = printable(text.replace("\n", " "))[:MAX_TEXT]
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
