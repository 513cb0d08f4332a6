"""FleetPicture: what the workers of a fleet do at a moment: rows are workers, what is expected of each is outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiler.pages.rows_picture import RowBar, rows_picture
from compiler.views.phrases import seconds_phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    State = Callable[[Callable[[str], bool]], Mapping[str, Any]]
    """Whether a namespace may be looked into in; the fleet as `buildgraph fleet --format json` says it out."""

MOST_BARS = 400
LONGEST = 24 * 3600.0
"""Seconds before now that are shown, and after: of what takes longer a part."""


def aged(state: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The same some moments later: what runs runs on."""
    later = min(LONGEST, max(0.0, now - state["at"]))
    running = [{**each, "seconds": each["seconds"] + later} for each in state["running"]]
    return {**state, "at": now, "running": sorted(running, key=lambda each: -each["seconds"])}


def fleet_picture(state: Mapping[str, Any]) -> str:
    """One SVG element, "" if nothing runs. state: of `aged`."""
    running: Sequence[Mapping[str, Any]] = state["running"][:MOST_BARS]
    if not running:
        return ""
    before = min(LONGEST, max(1.0, *(each["seconds"] for each in running), 1.0))
    left = max((each["expected"] - each["seconds"] for each in running), default=0.0)
    seconds = before + min(LONGEST, max(0.0, left))
    rows: dict[str, list[RowBar]] = {}
    for each in running:
        start, took = max(0.0, before - each["seconds"]), seconds_phrase(each["seconds"])
        expected = f" of about {seconds_phrase(each['expected'])}" if each["expected"] else ""
        end = max(before, min(seconds, before + each["expected"] - each["seconds"]))
        tooltip = f"{each['text']}: for {took}{expected}; {each['reason']}"
        style = "miss" if not each["expected"] or each["expected"] >= each["seconds"] else "late"
        rows.setdefault(each["worker"], []).append(RowBar(start, end, each["text"], tooltip, style))
    named = [(name, rows[name]) for name in sorted(rows)]
    count = len(running)
    label = f"{count} {'action runs' if count == 1 else 'actions run'} on {len(rows)} workers"
    return rows_picture(named, seconds, label, now=before)
