"""A plan as JSON, version 1: documented in docs/plan-json.md, and stable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from compiler.forecast import DEPENDS, HIT, MISS

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
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _node(outlook: Outlook) -> dict[str, Any]:
    node = outlook.node
    layer = outlook.result.layer if outlook.result is not None else None
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
        "bytes": layer.tar.size if layer is not None and layer.tar is not None else None,
    }
