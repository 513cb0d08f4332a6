"""What nodes call their stages, and which stages an option of the command line means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import UsageError
from compiler.dockerfile.errors import did_you_mean
from compiler.dockerfile.parser import stage_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.dockerfile.parser import Stage

_LISTED = 10
"""Stages that a message names."""


def stage_names(stages: Sequence[Stage]) -> list[str]:
    """`Node.stage` of each stage, as lowering has it: a name that comes again gets the number of its stage."""
    found: list[str] = []
    for stage in stages:
        name = stage.name or str(stage.index)
        found.append(f"{name}~{stage.index}" if name in found else name)
    return found


def filtered_stages(stages: Sequence[Stage], wanted: Sequence[str]) -> tuple[str, ...]:
    """`Node.stage` of each stage that is wanted by its name, in any case, or by its number; of one name all.

    Raises UsageError for a name that none has: the user would think that its steps ran again.
    """
    labels = stage_names(stages)
    found: list[str] = []
    for word in filter(None, (word.strip() for word in wanted)):
        number = stage_number(word)
        these = [stage for stage in stages if stage.name == word.lower()]
        these = these or [stage for stage in stages if stage.index == number]
        if not these:
            names = [stage.name or str(stage.index) for stage in stages]
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise UsageError(
                f"--no-cache-filter {word}: the Dockerfile has no such stage{did_you_mean(word, names)}",
                hint=f"its stages are {', '.join(names[:_LISTED])}{more}",
            )
        found += [labels[stage.index] for stage in these]
    return tuple(dict.fromkeys(found))
