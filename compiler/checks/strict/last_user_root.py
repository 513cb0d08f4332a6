"""LastUserRoot: the last USER of the image says root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile


def check(file: CheckedFile) -> Iterator[Problem]:
    """Also where the USER stands in a stage below the target. An image without any USER is not told."""
    for view in file.final:
        for step in reversed(view.steps):
            if isinstance(step.instruction, ast.User):
                user = step.before.expand(step.instruction.user).partition(":")[0]
                if user in ("root", "0"):
                    message = f"The image runs as {user}: its last USER says so"
                    yield Problem(step.instruction, message, "USER NAME of an account without rights at the end")
                return
