"""The engine: runs the rules that are on and keeps the problems that no comment silences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.control import Control, comment_control
from compiler.checks.registry import BUILDKIT, strict_rules
from compiler.checks.rule import Reported

if TYPE_CHECKING:
    from compiler.checks.file import CheckedFile
    from compiler.checks.rule import Rule

MAX_FINDINGS = 1000
"""Of one file; a generated one with more is told about the first."""


def run_checks(file: CheckedFile, control: Control, *, strict: bool = False) -> list[Reported]:
    """The findings of a file by place. Raises DockerfileError for a malformed `# check=` comment.

    strict: our own rules are on, too.
    """
    local = {}
    everywhere = control
    for instruction in file.instructions():
        if instruction.comments:
            own = comment_control(instruction)
            if own is not None:
                local[instruction.span] = own
                everywhere = Control(control.skip, everywhere.experimental | own.experimental, control.error)
    rules: tuple[Rule, ...] = BUILDKIT
    if strict or everywhere.experimental:
        rules += strict_rules()
    found: dict[tuple[int, int, str, str], Reported] = {}
    for rule in rules:
        if not everywhere.enables(rule, strict):
            continue
        for problem in rule.check(file):
            own = local.get(problem.instruction.span)
            applying = control.merged(own) if own else control
            if applying.enables(rule, strict):
                span = problem.span
                key = (span.first_line, span.first_column, rule.name, problem.message)
                found[key] = Reported(rule, problem, applying.error)
            if len(found) >= MAX_FINDINGS:
                break
    return [found[key] for key in sorted(found)]
