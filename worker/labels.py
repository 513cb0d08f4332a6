"""Labels: what workers say that they have, and steps that they need, as people write it."""

from __future__ import annotations

MAX_LABEL = 300
"""Characters of a label's name, and of its value."""
MAX_ASKED = 16
"""Labels that one step asks for."""


def parse_label(text: str) -> tuple[str, str]:
    """(name, value) of `NAME=VALUE`. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not name or not equals or len(name) > MAX_LABEL or len(value) > MAX_LABEL or name.startswith("namespace:"):
        raise ValueError(f"{text[:80]!r} is not of the form NAME=VALUE")
    return name, value
