"""ConsecutiveRuns: RUN after RUN, each with a layer of its own in the image."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile


def check(file: CheckedFile) -> Iterator[Problem]:
    """Told at the second of a row; only of stages whose layers become the image, and of RUNs with equal flags."""
    for view in file.final:
        for kind, group in groupby(view.stage.instructions, key=_kind):
            runs = list(group)
            if kind is not None and len(runs) > 1:
                message = f"{len(runs)} RUN instructions in a row make {len(runs)} layers"
                yield Problem(runs[1], message, "RUN first && second, or one RUN <<EOF with a line each")


def _kind(instruction: ast.Instruction) -> tuple[object, ...] | None:
    """What RUNs must have in common to be joined."""
    if not isinstance(instruction, ast.Run):
        return None
    return instruction.mounts, instruction.network, instruction.security, instruction.devices
