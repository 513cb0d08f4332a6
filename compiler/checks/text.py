"""Findings as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.checks.rule import Reported


def render(findings: Sequence[Reported]) -> str:
    """Each finding with its page, its lines and what to write instead; then how many there are."""
    parts = [_one(finding) for finding in findings]
    count = len(findings)
    if not count:
        return "Check complete, no warnings found.\n"
    errors = sum(finding.error for finding in findings)
    failing = f", {errors} of them fail the build" if errors else ""
    return "\n".join(parts) + f"\nCheck complete, {counted(count)} found{failing}.\n"


def _one(finding: Reported) -> str:
    rule = finding.rule
    level = "ERROR" if finding.error else "WARNING"
    lines = [f"{level}: {rule.name}{f' - {rule.url}' if rule.url else ''}"]
    lines += [f"{finding.span}: {finding.message}", finding.span.excerpt()]
    if finding.advice:
        lines.append(f"     = instead: {finding.advice}")
    return "\n".join(lines) + "\n"


def summary(findings: Sequence[Reported]) -> str:
    """A line each, as a build says it."""
    lines = [f"{counted(len(findings))} found (use --check to expand):"]
    lines += [f" - {each.rule.name}: {each.message} (line {each.span.first_line})" for each in findings]
    return "\n".join(lines)


def counted(count: int) -> str:
    return "1 warning" if count == 1 else f"{count} warnings"
