"""Sink: the text stream that a view writes to, which may go away at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

DEFAULT_SIZE = (80, 24)
"""Columns and lines of a terminal that does not say."""


class Sink:
    """Writes and never raises: a stream that was closed, here or at its other end, swallows the rest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False
        self.unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")

    def write(self, text: str) -> None:
        if self._gone or not text:
            return
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            self._stream.flush()
        except BlockingIOError:
            # Somebody else made the terminal non-blocking. What it had no room for is lost, the next may fit.
            return
        except (OSError, ValueError):
            self._gone = True

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal as they are now."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return DEFAULT_SIZE
        return columns or DEFAULT_SIZE[0], lines or DEFAULT_SIZE[1]
