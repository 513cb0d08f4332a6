"""The ignore rules of a context, for checks: read anew, as a check needs no session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.errors import BuildgraphError
from compiler.dockerfile.ignore import parse_ignore_file
from compiler.sources import IGNORE_FILE, MAX_IGNORE
from compiler.text_file import read_text_file

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
            data = read_text_file(path, MAX_IGNORE)
            if data is not None:
                return parse_ignore_file(data.decode("utf-8", "surrogateescape"), os.path.basename(path))
        except BuildgraphError:
            return None
    return None
