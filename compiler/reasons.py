"""Reasons: why a step is a hit, a miss or still open, in a word for programs and a sentence for people."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple


class Reason(Enum):
    """The values are stable: they stand in the JSON of `plan`."""

    SAME_RECIPE = "same-recipe"
    SAME_CONTENT = "same-content"
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
    GONE = "gone"
    INPUT_OPEN = "input-open"


class Explained(NamedTuple):
    """A reason and its sentence."""

    reason: Reason
    text: str


def explain_miss(parts: dict[str, Any], before: dict[str, Any] | None) -> Explained:
    """Compare what a recipe key was made of with what it was made of when this place was last built."""
    if before is None:
        return Explained(Reason.NEVER_BUILT, "no earlier build of this step is known")
    if parts["platform"] != before["platform"]:
        return Explained(Reason.PLATFORM_CHANGED, f"the platform was {before['platform']}")
    if parts["operation"] != before["operation"]:
        return _explain_operation(parts["operation"], before["operation"])
    if parts["sources"] != before["sources"]:
        return Explained(Reason.FILES_CHANGED, "the files that it takes changed")
    if parts["rootfs"] != before["rootfs"]:
        return Explained(Reason.BASE_CHANGED, "what it builds on changed")
    return Explained(Reason.GONE, "its result is no longer in the store")


def _explain_operation(now: dict[str, Any], before: dict[str, Any]) -> Explained:
    if now.get("is") != before.get("is"):
        return Explained(Reason.OPERATION_CHANGED, "another instruction stood here")
    fields = sorted(name for name in now if now[name] != before.get(name))
    if "argv" in fields:
        return Explained(Reason.COMMAND_CHANGED, "the command changed")
    if fields == ["env"]:
        old, new = dict(before["env"]), dict(now["env"])
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        return Explained(Reason.VARIABLES_CHANGED, f"the value of {', '.join(names)} changed")
    return Explained(Reason.OPERATION_CHANGED, f"the instruction changed: {', '.join(fields)}")
