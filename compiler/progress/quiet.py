"""QuietReporter: nothing until the end, and then only what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.progress.events import Ended
from compiler.progress.sink import Sink
from compiler.progress.text import printable

if TYPE_CHECKING:
    from typing import TextIO

    from compiler.progress.events import Event


class QuietReporter:
    """Writes the message of an Ended, if it has one. One event is written at once, so there is nothing to lock."""

    def __init__(self, stream: TextIO) -> None:
        self._sink = Sink(stream)

    def report(self, event: Event) -> None:
        if isinstance(event, Ended) and event.message:
            self._sink.write("".join(f"{printable(line)}\n" for line in event.message.split("\n")))

    def close(self) -> None:
        """Nothing is held back."""
