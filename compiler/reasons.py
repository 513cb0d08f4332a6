"""Reasons: why a step is a hit, a miss or still open, in a word for programs and a sentence for people."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Reason(Enum):
    """The values are stable: they stand in the JSON of `plan`."""

    SAME_RECIPE = "same-recipe"
    SAME_CONTENT = "same-content"
    SAME_STEP = "same-step"
    SOURCE = "source"
    NOT_NEEDED = "not-needed"
    NEVER_BUILT = "never-built"
    NO_CACHE = "no-cache"
    COMMAND_CHANGED = "command-changed"
    VARIABLES_CHANGED = "variables-changed"
    OPERATION_CHANGED = "operation-changed"
    FILES_CHANGED = "files-changed"
    BASE_CHANGED = "base-changed"
    PLATFORM_CHANGED = "platform-changed"
    SOURCE_CHANGED = "source-changed"
    BASE_IMAGE_CHANGED = "base-image-changed"
    MODE_CHANGED = "mode-changed"
    SECRET_CHANGED = "secret-changed"  # noqa: S105  # no secret, but what happened to one
    SECRET_UNKNOWN = "secret-unknown"  # noqa: S105  # nor this: two stores cannot compare theirs
    EXPIRED = "expired"
    EVICTED = "evicted"
    GONE = "gone"
    INPUT_OPEN = "input-open"


class Explained(NamedTuple):
    """A reason, its sentence, and what more there is to say, line by line: the files that changed, old and new."""

    reason: Reason
    text: str
    details: tuple[str, ...] = ()
