"""The ignore rules of a context, for checks: read anew, as a check needs no session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.errors import BuildgraphError
from compiler.dockerfile.ignore import parse_ignore_file
from compiler.sources import IGNORE_FILE, MAX_IGNORE

if TYPE_CHECKING:
    from compiler.session import Definition
    from worker.ignore import IgnoreRules


def ignore_rules(definition: Definition) -> IgnoreRules | None:
    """Of the first ignore file that exists; None for none, or one that the build itself will complain about."""
    if definition.context is None:
        return None
    beside = [f"{definition.dockerfile_path}{IGNORE_FILE}"] if definition.dockerfile_path else []
    for path in (*beside, os.path.join(definition.context, IGNORE_FILE)):
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_IGNORE).decode("utf-8", "surrogateescape")
            return parse_ignore_file(text, os.path.basename(path))
        except FileNotFoundError:
            continue
        except (OSError, BuildgraphError):
            return None
    return None
