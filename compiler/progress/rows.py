"""Row: one line of the live view, and how it is fitted into the terminal's width."""

from __future__ import annotations

import unicodedata
from typing import Literal, NamedTuple

Style = Literal["", "bold", "dim", "red", "green", "yellow", "cyan"]

_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

LEFT_COLUMNS = 20
"""Columns below which the left makes no sense; what stands beside it goes first."""


class Marks(NamedTuple):
    """The characters in front of steps. busy: frames of the spinner. cut: stands for what had no room."""

    done: str
    failed: str
    stopped: str
    busy: str
    cut: str


UNICODE = Marks("✓", "✗", "■", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "…")
ASCII = Marks("+", "x", "-", "|/-\\", "~")
"""For a terminal whose encoding lacks the others."""


class Part(NamedTuple):
    """A stretch of text in one style. The text is printable and has no tabs."""

    text: str
    style: Style = ""


class Row(NamedTuple):
    """left: cut off where the room ends. note: dim behind it; the left gives way to it as long as something of the left
    stays. right: stands at the right edge. whole: never cut, the terminal wraps it."""

    left: tuple[Part, ...]
    note: str = ""
    right: str = ""
    whole: bool = False

    def render(self, width: int, colour: bool, cut: str) -> str:
        """The row with its colours as escape sequences, not wider than `width` columns unless it is `whole`."""
        if self.whole:
            return "".join(_paint(part, colour) for part in self.left)
        right = f"  {self.right}" if self.right and cells(self.right) + 2 + LEFT_COLUMNS <= width else ""
        note = f" ({self.note})" if self.note else ""
        room = width - cells(right) - cells(note)
        if room < LEFT_COLUMNS:
            note, room = "", width - cells(right)
        pieces = []
        if sum(cells(part.text) for part in self.left) > room:
            room = max(0, room - cells(cut))
        else:
            cut = ""
        for part in self.left:
            head = _head(part.text, room)
            room -= cells(head)
            fits = head == part.text
            pieces.append(_paint(part if fits else part._replace(text=head + cut), colour))
            if not fits:
                break
        return "".join([*pieces, _paint(Part(note, "dim"), colour), " " * room if right else "", right])


def cells(text: str) -> int:
    """Columns that the text takes: wide East Asian characters and emoji take two, accents none."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _head(text: str, room: int) -> str:
    """As much of the text's beginning as fits."""
    for place, character in enumerate(text):
        room -= _cell(character)
        if room < 0:
            return text[:place]
    return text


def _paint(part: Part, colour: bool) -> str:
    return f"\x1b[{_SGR[part.style]}m{part.text}\x1b[0m" if part.style and colour and part.text else part.text
