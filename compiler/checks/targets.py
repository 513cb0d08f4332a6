"""Targets: the stages that a Dockerfile offers, for `--call=targets`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from compiler.checks.lint_json import encoded, location
from compiler.checks.table import table

if TYPE_CHECKING:
    from compiler.checks.file import CheckedFile


def render_text(file: CheckedFile) -> str:
    """A line a stage; the one that is built without --target is marked."""
    rows = [("TARGET", "BASE", "DESCRIPTION")]
    for stage in file.dockerfile.stages:
        name = stage.name or str(stage.index)
        default = " (default)" if stage is file.dockerfile.stages[-1] else ""
        rows.append((name + default, stage.from_.image, stage.from_.description))
    return table(rows)


def render_json(file: CheckedFile) -> str:
    """BuildKit's shape; `name` and `description` are `""` where there is none."""
    stages = file.dockerfile.stages
    targets: list[dict[str, Any]] = []
    for stage in stages:
        found = {
            "name": stage.name,
            "default": stage is stages[-1],
            "description": stage.from_.description,
            "base": stage.from_.image,
            "platform": stage.from_.platform,
            "location": location(stage.from_.span),
        }
        targets.append(found)
    return json.dumps({"targets": targets, "sources": [encoded(file.dockerfile.source)]}, indent=2) + "\n"
