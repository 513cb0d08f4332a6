"""OpenBuild: a build that may want actions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class OpenBuild:
    """since: when it was opened. actions: keys of what it wants, in order. done: actions whose results it got."""

    build: str
    person: str
    since: float
    actions: dict[str, None] = field(default_factory=dict)
    done: int = 0
