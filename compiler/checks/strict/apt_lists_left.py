"""AptListsLeft: `apt-get update` in a layer of the image, and its lists (20 to 50 MB) stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.checks.rule import Problem
from compiler.checks.shell import commands, run_script
from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.checks.file import CheckedFile

_LISTS = "/var/lib/apt"


def check(file: CheckedFile) -> Iterator[Problem]:
    """Only the stages whose layers become the image count: elsewhere the lists do no harm."""
    for view in file.final:
        for instruction in view.stage.instructions:
            if not isinstance(instruction, ast.Run) or any(_LISTS in mount for mount in instruction.mounts):
                continue
            found = [command.plain for command in commands(run_script(instruction))]
            updates = any(words[:1] in (("apt-get",), ("apt",)) and "update" in words for words in found)
            removes = any(words[:1] == ("rm",) and any(_LISTS in word for word in words) for words in found)
            if updates and not removes:
                yield Problem(
                    instruction,
                    "The lists of apt-get update stay in the layer",
                    "&& rm -rf /var/lib/apt/lists/* at the end of this RUN, or --mount=type=cache,target=/var/lib/apt",
                    instruction.span.find("update"),
                )
