"""Coloured: lines of a log for a terminal: colours stay, everything else that acts on the terminal goes."""

from __future__ import annotations

import re

from compiler.progress.text import printable

_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_RESET = "\x1b[0m"


class Coloured:
    """Cleans the lines of one log, in their order."""

    def __init__(self, *, colour: bool) -> None:
        """colour: whether colours stay at all."""
        self._keep = colour
        self._open = False

    def clean(self, line: str) -> str:
        """A line without its end. Of one that was overwritten by carriage returns the last version stays, with all
        colours that were set before it."""
        if line.isprintable():
            return line
        if not self._keep or "\x1b[" not in line:
            return printable(line)
        *before, last = re.split(r"\r+", line.rstrip("\r"))
        while before and not printable(last).strip():
            last = before.pop() + "".join(_COLOUR.findall(last))
        parts = _COLOUR.split(last)
        parts[::2] = map(printable, parts[::2])
        colours = [colour for dropped in before for colour in _COLOUR.findall(dropped)]
        self._open = self._open or bool(colours) or len(parts) > 1
        return "".join([*colours, *parts])

    def end(self) -> str:
        """What gives the terminal its own colours back."""
        return _RESET if self._open else ""
