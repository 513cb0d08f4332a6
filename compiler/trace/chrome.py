"""Chrome: a timeline in the Trace Event Format, which Perfetto and chrome://tracing show.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU describes it.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from compiler.trace.lanes import lanes
from compiler.trace.timeline import HERE

if TYPE_CHECKING:
    from compiler.trace.timeline import Bar, Timeline

VERSION = 1
"""Of what stands in `args` and `otherData`: goes up when a field changes its meaning or disappears."""
PID = 1
RESULTS = {"done": "ran"}
"""Status of a bar, where it is another word than ours."""


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """The whole document. Times in µs from the start of the build."""
    began = timeline.began
    rows: dict[str, list[Bar]] = {"": []}
    for bar in timeline.bars:
        rows.setdefault(bar.worker, []).append(bar)
    events: list[dict[str, Any]] = [_metadata("process_name", 0, name="buildgraph build")]
    critical = frozenset(timeline.critical)
    ends: dict[str, tuple[int, int, int]] = {}
    tid = 0
    for worker in ("", *sorted(rows.keys() - {""})):
        bars = rows[worker]
        spans = [(_micros(bar.start - began), _micros(bar.end - began)) for bar in bars]
        found = lanes(spans)
        first = tid + 1
        for lane in range(max(found, default=0) + 1):
            tid += 1
            name = worker or HERE
            events.append(_metadata("thread_name", tid, name=name if lane == 0 else f"{name} ({lane + 1})"))
            events.append(_metadata("thread_sort_index", tid, sort_index=tid))
        for bar, (start, end), lane in zip(bars, spans, found, strict=True):
            marked = bar.node in critical and bar.status not in ("cached", "again", "late")
            events.append(_event(bar, start, end, first + lane, marked))
            if marked:
                ends[bar.node] = (first + lane, start, end)
    events += _arrows(timeline, ends)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "version": VERSION, "producer": "buildgraph", "began": round(began, 6),
            "seconds": round(timeline.ended - began, 6), "complete": timeline.complete, "ok": timeline.ok,
            "digest": timeline.digest, "hits": timeline.hits, "ran": timeline.ran,
            "critical_path": list(timeline.critical),
        },
    }  # fmt: skip


def chrome_bytes(timeline: Timeline) -> bytes:
    """The same as a file holds it."""
    return json.dumps(chrome_trace(timeline), separators=(",", ":")).encode() + b"\n"


def _micros(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def _metadata(kind: str, tid: int, **args: object) -> dict[str, Any]:
    return {"ph": "M", "pid": PID, "tid": tid, "name": kind, "args": args}


def _event(bar: Bar, start: int, end: int, tid: int, critical: bool) -> dict[str, Any]:
    """A bar: one event from its start to its end."""
    args: dict[str, Any] = {"status": RESULTS.get(bar.status, bar.status)}
    if bar.node:
        args |= {
            "id": bar.node, "instruction": bar.name, "key": bar.key, "reason": bar.reason, "why": bar.why,
            "note": bar.note, "worker": bar.worker or HERE, "waited_seconds": round(bar.waited, 6), "size": bar.size,
            "critical": critical,
        }  # fmt: skip
    categories = ["node", bar.kind] if bar.node else [bar.kind]
    return {
        "ph": "X", "pid": PID, "tid": tid, "ts": start, "dur": end - start, "name": bar.name,
        "cat": ",".join([*categories, *(["critical"] if critical else [])]), "args": args,
    }  # fmt: skip


def _arrows(timeline: Timeline, ends: dict[str, tuple[int, int, int]]) -> list[dict[str, Any]]:
    """From each bar of the critical path to the next."""
    events: list[dict[str, Any]] = []
    chain = [ends[name] for name in timeline.critical if name in ends]
    for number, (before, after) in enumerate(itertools.pairwise(chain), 1):
        head = {"pid": PID, "cat": "critical", "name": "critical path", "id": number}
        # An arrow belongs to the bar that it begins in, and a bar's end is not in it.
        at = max(before[1], min(before[2] - 1, after[1]))
        if at > after[1]:
            continue  # nothing leads back in time
        events.append({**head, "ph": "s", "tid": before[0], "ts": at})
        events.append({**head, "ph": "f", "bp": "e", "tid": after[0], "ts": after[1]})
    return events
