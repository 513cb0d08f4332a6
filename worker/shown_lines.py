"""ShownLines: the lines of a step's output as they are shown, as many as anybody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_LIMIT = 64 << 10
"""A line that goes on longer is shown and kept in pieces."""
SHOWN_LINES = 200_000
"""Lines of one step that are shown; nobody reads more, and showing them takes longer than making them."""


class ShownLines:
    """Hands lines to `show` until there were too many, and then says so once."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether no further line is shown."""
        return self._count >= SHOWN_LINES

    def add(self, line: bytes) -> str:
        """Show a line, given without its end; the line as text."""
        text = line.decode("utf-8", "replace").rstrip("\r")
        self._count += 1
        if self._count <= SHOWN_LINES:
            self._show(text)
        elif self._count == SHOWN_LINES + 1:
            self._show(f"[more than {SHOWN_LINES} lines: the rest is only kept in the log]")
        return text
