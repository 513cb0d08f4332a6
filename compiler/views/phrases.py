"""Phrases: times, ages and reasons in the words that all views for people use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from compiler.forecast import DEPENDS, HIT, LOCAL, MISS
from compiler.progress.rows import cells
from compiler.progress.text import printable, printable_lines, size_text
from worker.variation import UNKNOWN

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook

_LABELS = {HIT: "hit", MISS: "run", DEPENDS: "depends"}
NOTICEABLE = 0.2
"""Seconds, and share of the median, by which earlier runs must differ before their spread is worth room."""
_DAY = 86400
UNSTEADY_SOMEWHERE = "its output differed; its earlier layer is gone, so where is not known"
BOX_TITLE = 48
"""Characters of an instruction in a box that grows with its text."""


def label(outlook: Outlook) -> str:
    """What will happen to a node, in at most seven letters."""
    return "same" if outlook.same_as else _LABELS[outlook.status]


def one_line(text: str) -> str:
    """Untrusted text on one line, harmless for a terminal."""
    return " ".join(printable_lines(text).split())


def cut(text: str, width: int, mark: str = "…") -> str:
    """At most `width` columns of a text, ending in the mark if something had to go."""
    if cells(text) <= width:
        return text
    text = text[: max(0, width - len(mark))]
    while text and cells(text) + len(mark) > width:
        text = text[:-1]
    return text + mark if width >= len(mark) else ""


def seconds_phrase(value: float) -> str:
    """`<0.1 s`, `3.2 s`, `2 min 05 s`, `1 h 02 min`."""
    if value < 0.05:
        return "<0.1 s"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def about(outlook: Outlook) -> str:
    """How long it will take, `~3.2 s`; `?` if it never ran, "" for a hit."""
    if outlook.status == HIT or not outlook.node.is_step:
        return ""
    if outlook.seconds is None:
        return "?"
    return ("" if outlook.seconds < 0.05 else "~") + seconds_phrase(outlook.seconds)


def boxed(outlook: Outlook) -> tuple[str, str]:
    """The two lines of a node's box: what it is and what will happen to it; its instruction, cut."""
    node = outlook.node
    named = f"{label(outlook)} as {outlook.same_as}" if outlook.same_as else label(outlook)
    head = one_line(f"{node.id} · {named} {about(outlook)}".rstrip())
    return head, cut(one_line(node.text or node.kind), BOX_TITLE)


def spread(outlook: Outlook, dash: str = "–") -> str:
    """The shortest and longest earlier run, `(2.9–4.0 s)`, if they differ noticeably; else ""."""
    known = outlook.expected
    if outlook.status == HIT or known is None or known.high - known.low <= NOTICEABLE * max(1.0, known.median):
        return ""
    low, high = seconds_phrase(known.low), seconds_phrase(known.high)
    if low.endswith(" s") and high.endswith(" s") and "min" not in low + high:
        low = low.removesuffix(" s")
    return f"({low}{dash}{high})"


def ago(made_at: float, now: float) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `6 d ago`, and the day in UTC for all that is older or in the future."""
    age = now - made_at
    if -60 < age < 60:
        return "just now"
    if not 0 <= age < 60 * _DAY:
        return time.strftime("on %Y-%m-%d", time.gmtime(max(0.0, min(made_at, 4e9))))
    for size, unit in ((_DAY, "d"), (3600, "h")):
        if age >= size:
            return f"{int(age // size)} {unit} ago"
    return f"{int(age // 60)} min ago"


def made(outlook: Outlook, now: float) -> tuple[str, ...]:
    """Where a hit comes from, in fewer and fewer words; empty for all else."""
    if outlook.status != HIT or not outlook.node.is_step or outlook.same_as:
        return ()
    result = outlook.result
    if result is None:
        return (one_line(outlook.why.text), one_line(outlook.why.text).split(":")[0])
    age = ago(result.made_at, now) + where(outlook)
    return (f"{age} by {one_line(result.made_by)}, took {seconds_phrase(result.seconds)}", age)


def where(outlook: Outlook) -> str:
    """`, remote` behind when it was made, for a result that has to be fetched; "" for one that is here."""
    return f", {one_line(outlook.where)}" if outlook.where not in ("", LOCAL) else ""


def same_as(outlook: Outlook) -> str:
    """Whose result a step takes that is the same as another one of the build; "" for all others."""
    return f"the same as {one_line(outlook.same_as)}, whose result it takes" if outlook.same_as else ""


def like(outlook: Outlook) -> str:
    """Which step's result a step may take in the end; "" if that is not so."""
    return f"may come out the same as {one_line(outlook.like)}" if outlook.like else ""


def because(outlook: Outlook) -> str:
    """The reason with `because` before it, unless it has one."""
    text = one_line(outlook.why.text)
    return text if "because" in text.split() else f"because {text}"


def if_same(outlook: Outlook, what: str) -> str:
    """What becomes of a node that depends if what it waits for stays the same; "" if that is not known."""
    return {
        HIT: f"if {what} stays the same, then a hit",
        MISS: f"runs anyway, also if {what} stays the same",
    }.get(outlook.if_same, "")


def unsteady(outlook: Outlook, most: int = 3) -> str:
    """That a step gave other files when it ran twice on the same inputs; "" if that was never seen."""
    paths = outlook.varies
    if not paths:
        return ""
    if UNKNOWN in paths:
        return f"not deterministic: {UNSTEADY_SOMEWHERE}"
    more = f", +{len(paths) - most} more" if len(paths) > most else ""
    count = "1 path" if len(paths) == 1 else f"{len(paths)} paths"
    return f"not deterministic: {count} differed: {', '.join(map(one_line, paths[:most]))}{more}"


def changed(forecast: Forecast, most: int = 3) -> str:
    """The assumption behind the forecast; "" if there is none."""
    paths = forecast.changed
    more = f", +{len(paths) - most} more" if len(paths) > most else ""
    what = "this file" if len(paths) == 1 else "these files"
    return f"if {what} changed: {', '.join(map(one_line, paths[:most]))}{more}" if paths else ""


def counts(forecast: Forecast) -> str:
    """How many steps will do what, and what has to be fetched."""
    hits, misses, depends = (forecast.count(status) for status in (HIT, MISS, DEPENDS))
    if not misses and not depends:
        text = f"nothing to do: {hits} {'step is' if hits == 1 else 'steps are'} cached"
    else:
        text = f"{hits - forecast.same} cached, {misses} to run"
        if depends:
            text += f", {depends} that {'depends' if depends == 1 else 'depend'} on what those make"
        if forecast.same:
            text += f", {forecast.same} the same as {'another' if forecast.same == 1 else 'others'}"
    return text + (f"; {size_text(forecast.moved)} to fetch" if forecast.moved else "")


def duration(forecast: Forecast) -> str:
    """The whole build's time, and what is not known of it; "" if nothing runs or nothing is known."""
    open_steps = [outlook for outlook in forecast.outlooks if outlook.node.is_step and outlook.status != HIT]
    unknown = sum(1 for outlook in open_steps if outlook.seconds is None)
    if not open_steps or unknown == len(open_steps):
        return ""
    text = f"about {seconds_phrase(forecast.wall_seconds or forecast.seconds)}"
    if not unknown:
        return text
    return f"{text} and {'one step that' if unknown == 1 else f'{unknown} steps that'} never ran before"


def wrap(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` columns, broken between words where there are any."""
    lines = [""]
    for word in printable(text).split():
        while cells(word) > width > 0:
            word, rest = word[: width // 2], word[width // 2 :]
            lines += [word, ""]
            word = rest
        if lines[-1] and cells(lines[-1]) + 1 + cells(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return [line for line in lines if line]
