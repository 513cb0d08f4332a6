"""SudoInRun: sudo, which a build does not need and which behaves unlike a login here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.checks.shell import commands, run_script
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile


def check(file: CheckedFile) -> Iterator[Problem]:
    """A command that starts with sudo; told once a RUN. Installing sudo is not using it."""
    for view in file.active:
        for instruction in view.stage.instructions:
            if not isinstance(instruction, ast.Run):
                continue
            exec_form = isinstance(instruction.command, ast.ExecForm) and instruction.command.args[:1] == ("sudo",)
            if exec_form or any(each.words[0] == "sudo" for each in commands(run_script(instruction))):
                advice = "USER root above, and USER NAME again below; gosu or setpriv in a script that starts the image"
                place = instruction.span.find("sudo")
                yield Problem(instruction, "sudo is used in a build", advice, place)
