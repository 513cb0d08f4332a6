"""A plan as a tree for people: stages, their steps, what will happen to each and why; fits 80 columns."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.progress.text import printable
from compiler.reasons import Reason

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook
    from compiler.session import Session

WIDEST = 120
_LABELS = {HIT: "hit", MISS: "run", DEPENDS: "depends"}
_COLOURS = {HIT: "32", MISS: "33", DEPENDS: "36"}


def render(session: Session, forecast: Forecast, *, colour: bool) -> str:
    """The whole text, ending in a newline."""
    width = min(WIDEST, shutil.get_terminal_size((80, 24)).columns)
    lines = []
    # In the order in which stages end, so that each comes after those that it takes from.
    ends = [outlook.node.stage for outlook in forecast.outlooks if outlook.node.kind == "stage"]
    stages: dict[str, list[Outlook]] = {stage: [] for stage in ends}
    for outlook in forecast.outlooks:
        if outlook.node.is_step or outlook.node.kind == "stage":
            stages.setdefault(outlook.node.stage, []).append(outlook)
    sources = [outlook for outlook in forecast.outlooks if not outlook.node.is_step and outlook.node.kind != "stage"]
    for outlook in sources:
        subject = f"{outlook.node.kind} {_one_line(outlook.node.text)}".strip()
        lines.append(_cut(f"{subject}  {printable(outlook.why.text)}", width))
    critical = set(forecast.critical_path)
    for stage, outlooks in stages.items():
        head = next(outlook for outlook in outlooks if outlook.node.kind == "stage")
        target = "  ← target" if head.node.id == session.graph.target else ""
        lines.append(_cut(f"stage {stage}: {_one_line(head.node.text)}{target}", width))
        steps = [outlook for outlook in outlooks if outlook.node.is_step]
        for place, outlook in enumerate(steps):
            branch = "└─" if place == len(steps) - 1 else "├─"
            lines += _step(outlook, branch, outlook.node.id in critical, width, colour)
    return "\n".join([*lines, "", *_summary(forecast, width), ""])


def _step(outlook: Outlook, branch: str, critical: bool, width: int, colour: bool) -> list[str]:
    label = _LABELS[outlook.status]
    seconds = f" ~{_seconds(outlook.seconds)}" if (outlook.seconds or 0.0) >= 0.05 else ""
    mark = " *" if critical and outlook.status != HIT else ""
    plain = f"{branch} {label:7} {outlook.node.id}  {_one_line(outlook.node.text)}"
    line = _cut(plain, width - len(seconds) - len(mark)) + seconds + mark
    if colour:
        line = line.replace(f" {label:7} ", f" \x1b[{_COLOURS[outlook.status]}m{label:7}\x1b[0m ", 1)
    below = f"{outlook.node.stage}."
    if (outlook.status == HIT and outlook.result is not None) or _waits_for_its_stage(outlook, below):
        return [line]
    indent = "   " if branch == "└─" else "│  "
    return [line, _cut(f"{indent}        because {printable(outlook.why.text)}", width)]


def _waits_for_its_stage(outlook: Outlook, below: str) -> bool:
    """Whether the reason goes without saying: the step before it in the same stage runs."""
    return (
        outlook.why.reason is Reason.INPUT_OPEN
        and outlook.node.inputs[0].startswith(below)
        and outlook.why.text.endswith(f" {outlook.node.inputs[0]} makes")
    )


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _summary(forecast: Forecast, width: int) -> list[str]:
    hits, misses, depends = (forecast.count(status) for status in (HIT, MISS, DEPENDS))
    if not misses and not depends:
        return [f"nothing to do: {hits} {'step is' if hits == 1 else 'steps are'} cached"]
    lines = [f"{hits} cached, {misses} to run, {depends} that depend on what those make"]
    if forecast.critical_path:
        known = f" about {_seconds(forecast.seconds)}" if forecast.seconds >= 0.05 else ""
        lines.append(_cut(f"* longest way{known}: {' → '.join(forecast.critical_path)}", width))
    return lines


def _seconds(value: float | None) -> str:
    value = value or 0.0
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
