"""PipefailMissing: a pipe whose first command may fail unseen, so that the layer of a failed download is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.checks.shell import commands, run_script
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile

_OTHERS = ("powershell", "pwsh", "cmd")
_HARMLESS = frozenset({"echo", "printf", "yes", "true", ":"})
"""Commands in front of a pipe that do not fail, or that are meant to be cut short."""


def check(file: CheckedFile) -> Iterator[Problem]:
    """Neither SHELL nor the script itself sets pipefail."""
    for view in file.active:
        for step in view.steps:
            instruction = step.instruction
            if not isinstance(instruction, ast.Run) or any("pipefail" in word for word in step.shell):
                continue
            if step.shell and step.shell[0].rpartition("/")[2].lower().removesuffix(".exe") in _OTHERS:
                continue
            script = run_script(instruction)
            if "|" not in script or "pipefail" in script:
                continue
            piped = [command for command in commands(script) if command.piped and command.words[0] not in _HARMLESS]
            if piped:
                message = f"If {piped[0].words[0]} fails in front of the pipe, this RUN still succeeds"
                advice = 'SHELL ["/bin/bash", "-o", "pipefail", "-c"] above, or RUN set -o pipefail && …'
                yield Problem(instruction, message, advice, instruction.span.find(piped[0].words[0]))
