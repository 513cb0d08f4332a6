"""Findings as JSON, in the shape of BuildKit's lint results, with what to write instead beside it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from compiler.progress.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.checks.rule import Reported
    from compiler.dockerfile.errors import DockerfileError
    from compiler.dockerfile.source import Source, Span


def render(source: Source, findings: Sequence[Reported], error: DockerfileError | None = None) -> str:
    """`{"warnings": […], "sources": […]}`, and `buildError` where the file cannot be parsed."""
    document: dict[str, Any] = {"warnings": [_warning(finding) for finding in findings], "sources": [encoded(source)]}
    if error is not None:
        document["buildError"] = {"message": error.message, "location": location(error.span)}
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _warning(finding: Reported) -> dict[str, Any]:
    found = {
        "ruleName": finding.rule.name,
        "description": finding.rule.description,
        "url": finding.rule.url,
        "detail": printable(finding.message),
        "advice": printable(finding.advice),
        "location": location(finding.span),
    }
    if not finding.rule.url:
        del found["url"]
    return found


def location(span: Span) -> dict[str, Any]:
    """Lines count from 1, characters from 0, as in BuildKit; the end character is the first one behind."""
    start = {"line": span.first_line, "character": span.first_column - 1}
    end = {"line": span.last_line, "character": span.last_column}
    return {"ranges": [{"start": start, "end": end}]}


def encoded(source: Source) -> dict[str, str]:
    """A source as BuildKit has it: its name, and its text in base64."""
    data = source.text.encode("utf-8", "surrogateescape")
    return {"filename": source.name, "data": base64.b64encode(data).decode("ascii")}
