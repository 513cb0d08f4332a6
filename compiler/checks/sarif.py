"""Findings as SARIF 2.1.0, which code hosts show beside the lines (OASIS, docs.oasis-open.org/sarif/sarif/v2.1.0)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from compiler.progress.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.checks.rule import Reported, Rule
    from compiler.dockerfile.errors import DockerfileError
    from compiler.dockerfile.source import Source, Span

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
INVALID = "InvalidDockerfile"
"""The rule that a file which cannot be parsed breaks."""


def render(source: Source, findings: Sequence[Reported], version: str, error: DockerfileError | None = None) -> str:
    """One run. version: of the program."""
    rules: list[Rule] = list({finding.rule.name: finding.rule for finding in findings}.values())
    described = [_rule(rule) for rule in rules]
    names = [rule.name for rule in rules]
    results = [
        _result(each.rule.name, names.index(each.rule.name), each.error, _message(each), each.span) for each in findings
    ]
    if error is not None:
        described.append({"id": INVALID, "shortDescription": {"text": "The Dockerfile cannot be built"}})
        results.append(_result(INVALID, len(names), True, error.message, error.span))
    driver = {"name": "buildgraph", "version": version, "rules": described}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "artifacts": [{"location": {"uri": _uri(source)}}],
        "results": results,
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": rule.name,
        "name": rule.name,
        "shortDescription": {"text": rule.description},
        "defaultConfiguration": {"level": "warning"},
    }
    if rule.url.startswith("https://"):
        found["helpUri"] = rule.url
    elif rule.url:
        found["help"] = {"text": f"See {rule.url}."}
    return found


def _message(finding: Reported) -> str:
    return f"{finding.message}. Instead: {finding.advice}" if finding.advice else finding.message


def _result(rule: str, index: int, error: bool, message: str, span: Span) -> dict[str, Any]:
    region = {
        "startLine": span.first_line,
        "startColumn": span.first_column,
        "endLine": span.last_line,
        "endColumn": span.last_column + 1,  # the first column behind
    }
    place = {"artifactLocation": {"uri": _uri(span.source), "index": 0}, "region": region}
    return {
        "ruleId": rule,
        "ruleIndex": index,
        "level": "error" if error else "warning",
        "message": {"text": printable(message)},
        "locations": [{"physicalLocation": place}],
    }


def _uri(source: Source) -> str:
    name = quote(source.name.encode("utf-8", "surrogateescape"))
    return f"file://{name}" if name.startswith("/") else name
