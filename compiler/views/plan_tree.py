"""A plan as a tree for people: stages, their steps, what will happen to each, why, and how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.progress.rows import Part, Row, cells
from compiler.progress.text import size_text
from compiler.views import phrases
from compiler.views.arrange import arrange, waits_for_the_step_before
from compiler.views.phrases import cut, one_line
from compiler.views.profile import bars, profile

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook
    from compiler.progress.rows import Style
    from compiler.views.arrange import Arranged, StageGroup

WIDEST = 160
DETAILS = 3
"""Lines of details below a step; `--format json` has all."""
_ID_WIDTH = 16
_BARS = 32
_NARROW = 72
"""Columns below which the spread of times gives way to the instruction."""
_COLOURS: dict[str, Style] = {HIT: "green", MISS: "yellow", DEPENDS: "cyan"}


class Glyphs(NamedTuple):
    """The characters of the tree that not every encoding has."""

    step: str
    last: str
    below: str
    cut: str
    target: str
    then: str
    dash: str
    unicode: bool


UNICODE = Glyphs("├─", "└─", "│ ", "…", "←", "→", "–", True)
ASCII = Glyphs("|-", "`-", "| ", "~", "<-", "->", "-", False)


class _Line(NamedTuple):
    """A line whose columns are still to be aligned. notes: of which the longest that fits is shown. time, spread, mark:
    at the right."""

    left: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    time: str = ""
    spread: str = ""
    mark: str = ""


def render(
    forecast: Forecast, target: str, *, width: int, now: float, colour: bool = False, unicode: bool = True
) -> str:
    """The whole text, ending in a newline; no line is wider than `width` columns. target: id of a stage node.
    now: seconds since the epoch."""
    tree = _Tree(forecast, target, min(WIDEST, max(20, width)), now, UNICODE if unicode else ASCII)
    return "\n".join([*tree.lines(colour), "", *tree.summary(colour), ""])


class _Tree:
    def __init__(self, forecast: Forecast, target: str, width: int, now: float, glyphs: Glyphs) -> None:
        self._forecast = forecast
        self._arranged: Arranged = arrange(forecast)
        self._target = target
        self._width = width
        self._now = now
        self._glyphs = glyphs
        self._critical = set(forecast.critical_path)
        steps = [outlook for outlook in forecast.outlooks if outlook.node.is_step]
        self._any_time = any(outlook.status != HIT and outlook.seconds is not None for outlook in steps)
        self._ids = min(_ID_WIDTH, max((cells(one_line(outlook.node.id)) for outlook in steps), default=0))

    def lines(self, colour: bool) -> list[str]:
        lines = [_Line((Part(phrases.changed(self._forecast), "bold"),))] if self._forecast.changed else []
        lines += [self._source(outlook) for outlook in self._arranged.sources]
        for stage in self._arranged.stages:
            lines += self._stage(stage)
        return self._aligned(lines, colour)

    def _source(self, outlook: Outlook) -> _Line:
        subject = f"{outlook.node.kind} {one_line(outlook.node.text)}".strip()
        return _Line((Part(f"{subject}  "), Part(one_line(outlook.why.text), "dim")))

    def _stage(self, stage: StageGroup) -> list[_Line]:
        parts = [Part(f"stage {one_line(stage.name)}", "bold"), Part(f": {one_line(stage.end.node.text)}")]
        if stage.end.node.id == self._target:
            # Before the name's instruction could push it out of the line.
            parts.insert(1, Part(f" {self._glyphs.target} target", "bold"))
        lines = [_Line(tuple(parts))]
        before = None
        for outlook in stage.steps:
            last = outlook is stage.steps[-1]
            lines.append(self._step(outlook, self._glyphs.last if last else self._glyphs.step))
            lines += self._below(outlook, before, "  " if last else self._glyphs.below)
            before = outlook
        return lines

    def _step(self, outlook: Outlook, branch: str) -> _Line:
        name = cut(one_line(outlook.node.id), _ID_WIDTH, self._glyphs.cut)
        critical = outlook.node.id in self._critical and outlook.status != HIT
        left = (
            Part(f"{branch} "),
            Part(f"{phrases.label(outlook):7}", _COLOURS[outlook.status]),
            Part(f" {name}{' ' * (self._ids - cells(name))}", "bold" if critical else ""),
            Part(f"  {one_line(outlook.node.text)}"),
        )
        notes = phrases.made(outlook, self._now)
        if outlook.status != HIT and outlook.moved:
            notes = (f"fetches {size_text(outlook.moved)}",)
        elif outlook.moved:
            fetched = f"fetches {size_text(outlook.moved)}"
            notes = (*(f"{note}, {fetched}" for note in notes), fetched)
        time = phrases.about(outlook) if self._any_time else ""
        spread = phrases.spread(outlook, self._glyphs.dash) if self._width >= _NARROW else ""
        return _Line(left, notes, time, spread, "*" if critical else "")

    def _below(self, outlook: Outlook, before: Outlook | None, rail: str) -> list[_Line]:
        """Why a step is no hit, what more there is to know of that, and whether its output is steady."""
        sentences = [self._why(outlook, before)]
        details: list[str] = []
        if outlook.status != HIT and sentences[0]:
            details = [one_line(line) for line in outlook.why.details[:DETAILS]]
            if len(details) == 1 and details[0].lstrip("~+- ").split(" (")[0] in sentences[0]:
                details = []
            more = len(outlook.why.details) - DETAILS
            details += [f"+{more} more"] if more > 0 else []
        indent = f"{rail} {'':8}"
        room = self._width - cells(indent)
        lines = [line for text in sentences if text for line in phrases.wrap(text, room)]
        lines += [cut(f"  {text}", room, self._glyphs.cut) for text in details]
        lines += phrases.wrap(phrases.unsteady(outlook), room)
        return [_Line((Part(indent), Part(line, "dim"))) for line in lines]

    def _why(self, outlook: Outlook, before: Outlook | None) -> str:
        if outlook.status == HIT:
            return phrases.same_as(outlook)
        if outlook.status == MISS:
            # Of steps that stand on each other for one reason only the first one says it.
            told = before is not None and before.status == MISS and before.why.text == outlook.why.text
            return "" if told else phrases.because(outlook)
        if not waits_for_the_step_before(outlook, self._arranged.by_id):
            same = phrases.if_same(outlook, "that")
            return phrases.because(outlook) + (f"; {same}" if same else "")
        if outlook.like:
            return phrases.like(outlook)
        # In a chain of them, what was said of the one before holds on.
        if before is not None and before.status == DEPENDS and before.if_same == outlook.if_same:
            return ""
        return phrases.if_same(outlook, f"what {one_line(outlook.node.inputs[0])} makes")

    def _aligned(self, lines: list[_Line], colour: bool) -> list[str]:
        time = max((cells(line.time) for line in lines), default=0)
        spread = max((cells(line.spread) for line in lines), default=0)
        mark = max((len(line.mark) for line in lines), default=0)
        rights = []
        for line in lines:
            right = line.time.rjust(time)
            right += f" {line.spread:{spread}}" if spread else ""
            right += f" {line.mark:{mark}}" if mark else ""
            rights.append(right if right.strip() else "")
        needed = [sum(cells(part.text) for part in line.left) for line in lines]
        reserved = max((cells(right) + 2 for right in rights if right), default=0)
        # As wide as the widest step needs: on a wide terminal the times would be far from what they belong to.
        steps = [size for size, right in zip(needed, rights, strict=True) if right]
        edge = min(self._width, max(steps, default=0) + reserved)
        drawn = []
        for line, size, right in zip(lines, needed, rights, strict=True):
            room = (edge if right else self._width) - (reserved if right else 0)
            note = next((text for text in line.notes if size + cells(text) + 3 <= room), "")
            row = Row(line.left, note, right)
            drawn.append(row.render(edge if right else self._width, colour, self._glyphs.cut).rstrip())
        return drawn

    def summary(self, colour: bool) -> list[str]:
        forecast = self._forecast
        lines = phrases.wrap(phrases.counts(forecast), self._width)
        duration = phrases.duration(forecast)
        lines += phrases.wrap(duration, self._width)
        if forecast.critical_path:
            known = f" {phrases.seconds_phrase(forecast.seconds)}" if duration else ""
            path = f" {self._glyphs.then} ".join(map(one_line, forecast.critical_path))
            lines.append(cut(f"* critical path{known}: {path}", self._width, self._glyphs.cut))
        periods = profile(forecast.spans)
        if periods:
            most = max(period.running for period in periods)
            end = phrases.seconds_phrase(periods[-1].end)
            tail = f" {end}, at most {most} at once"
            columns = max(4, min(_BARS, self._width - cells(tail) - len("running: 0 s ")))
            drawn = bars(periods, columns, unicode=self._glyphs.unicode)
            lines.append(cut(f"running: 0 s {drawn}{tail}", self._width, self._glyphs.cut))
        if colour and lines:
            lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
        return lines
