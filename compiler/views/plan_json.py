"""A plan as JSON, version 1: documented in docs/plan-json.md, and stable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.views.profile import profile

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook

VERSION = 1


def render(forecast: Forecast, target: str, platform: str) -> str:
    """The whole document, one line at the end."""
    document = {
        "version": VERSION,
        "target": target,
        "platform": platform,
        "nodes": [_node(outlook) for outlook in forecast.outlooks],
        "summary": {
            "hits": forecast.count(HIT),
            "misses": forecast.count(MISS),
            "depends": forecast.count(DEPENDS),
            "same": forecast.same,
            "expected_seconds": _round(forecast.seconds),
            "critical_path": list(forecast.critical_path),
            "wall_seconds": _round(forecast.wall_seconds),
            "moved_bytes": forecast.moved,
            "changed": list(forecast.changed),
            "profile": [[_round(one.start), _round(one.end), one.running] for one in profile(forecast.spans)],
            "spans": [
                {"id": span.node, "start": _round(span.start), "end": _round(span.end)} for span in forecast.spans
            ],
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def together(documents: list[str]) -> str:
    """The plans of several platforms, as `render` gives them, in one document."""
    value = {"version": VERSION, "plans": [json.loads(document) for document in documents]}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _node(outlook: Outlook) -> dict[str, Any]:
    node, expected, result = outlook.node, outlook.expected, outlook.result
    return {
        "id": node.id,
        "kind": node.kind,
        "stage": node.stage,
        "instruction": node.text,
        "line": node.span.first_line if node.span is not None else None,
        "inputs": list(node.inputs),
        "recipe_key": outlook.recipe_key,
        "status": outlook.status,
        "reason": outlook.why.reason.value,
        "explanation": outlook.why.text,
        "details": list(outlook.why.details),
        "if_same": outlook.if_same or None,
        "same_as": outlook.same_as or None,
        "like": outlook.like or None,
        "expected_seconds": _round(outlook.seconds),
        "expected_low": None if expected is None else _round(expected.low),
        "expected_high": None if expected is None else _round(expected.high),
        "expected_runs": 0 if expected is None else expected.runs,
        "bytes": result.size if result is not None else None,
        "moved_bytes": outlook.moved,
        "where": outlook.where or None,
        "made_at": None if result is None else _round(result.made_at),
        "made_by": None if result is None else result.made_by,
        "took_seconds": None if result is None else _round(result.seconds),
        "varies": list(outlook.varies),
    }


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
