"""The name under which the store remembers what was built: the context, the Dockerfile in it and the platform."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache import encoding

if TYPE_CHECKING:
    from cache.platform import Platform


def definition_file(context: str | None, dockerfile_path: str | None, platform: Platform, remote: str = "") -> str:
    """The same for two builds whose steps can be compared by their places.

    context: a directory, None for none. remote: the URL or archive that the context is then. dockerfile_path: None for
    a text that is not from a file.
    """
    where = os.path.realpath(context) if context else remote
    return f"{where}:{dockerfile_path or '-'}:{platform}"


def file_key(file: str) -> str:
    """`BuildRecord.file` and `StepRecords.file` of a definition's name."""
    return encoding.key("file", file)[:32]
