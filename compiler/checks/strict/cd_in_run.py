"""CdInRun: `cd` in a RUN, which the next instruction knows nothing of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.checks.shell import commands, run_script
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile


def check(file: CheckedFile) -> Iterator[Problem]:
    """A `cd` in a subshell is fine: it shows how far it goes."""
    for view in file.active:
        for instruction in view.stage.instructions:
            if not isinstance(instruction, ast.Run):
                continue
            for command in commands(run_script(instruction)):
                if command.words[0] == "cd" and command.depth == 0:
                    place = command.words[1] if len(command.words) > 1 else "DIRECTORY"
                    message = "cd changes the directory for the rest of this RUN only"
                    advice = f"WORKDIR {place} above, or a subshell: (cd {place} && …)"
                    yield Problem(instruction, message, advice, instruction.span.find("cd "))
                    break
