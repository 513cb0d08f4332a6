"""A plan as JSON, version 1: documented in docs/plan-json.md, and stable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from compiler.forecast import DEPENDS, HIT, MISS
from compiler.views.profile import profile

if TYPE_CHECKING:
    from compiler.forecast import Forecast, Outlook
    from compiler.session import Session

VERSION = 1


def render(session: Session, forecast: Forecast) -> str:
    """The whole document, one line at the end."""
    document = {
        "version": VERSION,
        "target": session.graph.target,
        "platform": str(session.options.platform),
        "nodes": [_node(outlook) for outlook in forecast.outlooks],
        "summary": {
            "hits": forecast.count(HIT),
            "misses": forecast.count(MISS),
            "depends": forecast.count(DEPENDS),
            "expected_seconds": round(forecast.seconds, 3),
            "critical_path": list(forecast.critical_path),
            "wall_seconds": round(forecast.wall_seconds, 3),
            "moved_bytes": forecast.moved,
            "changed": list(forecast.changed),
            "profile": [[round(each.start, 3), round(each.end, 3), each.running] for each in profile(forecast.spans)],
            "spans": [
                {"id": span.node, "start": round(span.start, 3), "end": round(span.end, 3)} for span in forecast.spans
            ],
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _node(outlook: Outlook) -> dict[str, Any]:
    node = outlook.node
    result, expected = outlook.result, outlook.expected
    layer = result.layer if result is not None else None
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
        "expected_seconds": None if outlook.seconds is None else round(outlook.seconds, 3),
        "expected_low": None if expected is None else round(expected.low, 3),
        "expected_high": None if expected is None else round(expected.high, 3),
        "expected_runs": 0 if expected is None else expected.runs,
        "where": None if result is None else "local",
        "made_at": None if result is None else result.made_at,
        "made_by": None if result is None else result.made_by,
        "took_seconds": None if result is None else round(result.seconds, 3),
        "if_same": outlook.if_same,
        "moved_bytes": outlook.moved,
        "details": list(outlook.why.details),
        "varies": list(outlook.varies),
        "bytes": layer.tar.size if layer is not None and layer.tar is not None else None,
    }
