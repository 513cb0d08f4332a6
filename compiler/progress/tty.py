"""Screen: lines that stay, and below them a picture that is drawn anew; the only place that imports rich (70 ms)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from compiler.progress.sink import Sink


class Screen:
    """For one thread. Lines are given with their colours as escape sequences, and fit the width unless they may wrap.

    rich writes into a buffer: a picture leaves in one write, which does not flicker, and a terminal that is gone is the
    sink's business. rich itself would end the process.
    """

    def __init__(self, sink: Sink) -> None:
        """Hides the cursor until `close`."""
        self._sink = sink
        self._buffer = io.StringIO()
        self._console = Console(
            file=self._buffer,
            force_terminal=True,
            force_interactive=True,
            color_system="standard",
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._live = Live(
            Text(),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()

    def show(self, above: list[str], picture: list[str], width: int, height: int) -> None:
        """Add lines that stay, and draw the picture below them. width, height: of the terminal, in characters."""
        self._console.size = (width, height)
        self._print(above)
        self._live.update(_text(picture), refresh=True)
        self._flush()

    def close(self, above: list[str]) -> None:
        """Add the last lines, remove the picture and show the cursor."""
        self._print(above)
        self._live.update(Text())
        self._live.stop()
        self._flush()

    def _print(self, lines: list[str]) -> None:
        if lines:
            # soft_wrap: the terminal breaks what is too long, so that it can be copied whole.
            self._console.print(_text(lines), soft_wrap=True)

    def _flush(self) -> None:
        self._sink.write(self._buffer.getvalue())
        self._buffer.seek(0)
        self._buffer.truncate()


def _text(lines: list[str]) -> Text:
    text = Text("\n", no_wrap=True, overflow="crop").join(map(Text.from_ansi, lines))
    text.no_wrap = True
    text.overflow = "crop"
    return text
