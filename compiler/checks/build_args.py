"""Build arguments that no ARG takes: mostly a name misspelt on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.dockerfile import instructions as ast
from worker.proxies import PROXIES

if TYPE_CHECKING:
    from compiler.checks.file import CheckedFile
    from compiler.options import BuildOptions

_WITHOUT_ARG = ("BUILDKIT_", "SOURCE_DATE_EPOCH")
"""Starts of names that mean something to the build itself."""


def unconsumed(file: CheckedFile, options: BuildOptions) -> str:
    """What to tell the user about them, `""` for nothing. An argument of a stage that is not needed counts as used."""
    if not options.build_args:
        return ""
    declared = {arg.name for each in file.instructions() if isinstance(each, ast.Arg) for arg in each.args}
    known = declared | file.globals.declared | PROXIES
    triggers = [text for view in file.stages if view.config is not None for text in view.config.on_build]
    left = [
        name
        for name, _ in options.build_args
        if name not in known and not name.startswith(_WITHOUT_ARG) and not any(name in text for text in triggers)
    ]
    if not left:
        return ""
    from compiler.checks.rules.variables import nearest

    hints = []
    for name in left:
        near = nearest(name, declared)
        hints.append(f"{name} (did you mean {near}?)" if near else name)
    return f"one or more build-args were not consumed: {', '.join(hints)}"
