"""Source, the text of a Dockerfile, and Span, a place in it that messages point at."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_EXCERPT_LINES = 6
"""A heredoc of a thousand lines would bury the message above it."""
_EXCERPT_WIDTH = 160


class Source(NamedTuple):
    """The text of one Dockerfile and the name that messages call it by."""

    name: str
    text: str

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Source:
        """Decode UTF-8 without its byte order mark; bytes that are not UTF-8 stay as surrogate escapes."""
        return cls(name, data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape"))

    def lines(self) -> list[str]:
        """The lines without their ends; only a line feed ends one, carriage returns before it belong to the end."""
        return list(_lines(self.text))

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.text)} characters)"


class Span(NamedTuple):
    """A stretch of a Source: 1-based lines and columns (in characters), both ends included. note: what stands there in
    the text's place, `ONBUILD of alpine:3.20`, if the text itself is not in the Source; else ""."""

    source: Source
    first_line: int
    first_column: int
    last_line: int
    last_column: int
    note: str = ""

    def __str__(self) -> str:
        place = f"{self.source.name}:{self.first_line}:{self.first_column}"
        return f"{place}, {self.note}" if self.note else place

    @property
    def line_text(self) -> str:
        """`4`, or `4, ONBUILD of alpine:3.20`."""
        return f"{self.first_line}, {self.note}" if self.note else str(self.first_line)

    def find(self, text: str) -> Span:
        """The first place of `text` inside this span, or the span itself where it does not stand on one line of it."""
        if self.note:
            return self
        lines = _lines(self.source.text)
        column = self.first_column - 1
        for number in range(self.first_line, min(self.last_line, len(lines)) + 1):
            found = lines[number - 1].find(text, column) if text else -1
            if found >= 0:
                return Span(self.source, number, found + 1, number, found + len(text))
            column = 0
        return self

    def excerpt(self) -> str:
        """The lines of the span, each with its number, and a line of carets under what the span covers in the first."""
        lines = _lines(self.source.text)[self.first_line - 1 : self.last_line]
        if not lines:
            return ""
        width = max(4, len(str(self.last_line)))
        first = lines[0]
        # A line of generated code can be megabytes long: show the part around the span.
        start = max(0, self.first_column - 1 - _EXCERPT_WIDTH // 2) if len(first) > _EXCERPT_WIDTH else 0
        shown = _printable(first[start : start + _EXCERPT_WIDTH])
        end = self.last_column if self.last_line == self.first_line else len(first.rstrip())
        before = shown[: self.first_column - 1 - start]
        carets = max(1, min(end - start, len(shown)) - len(before))
        rows = [f"{self.first_line:>{width}} | {shown}"]
        # Tabs are repeated, so that the carets stand right at any tab width.
        rows.append(f"{'':{width}} | {''.join(c if c == chr(9) else ' ' for c in before)}{'^' * carets}")
        for number, line in enumerate(lines[1:_EXCERPT_LINES], self.first_line + 1):
            rows.append(f"{number:>{width}} | {_printable(line[:_EXCERPT_WIDTH])}")
        if len(lines) > _EXCERPT_LINES:
            rows.append(f"{'':{width}} | …")
        return "\n".join(row.rstrip() for row in rows)


@functools.lru_cache(maxsize=4)
def _lines(text: str) -> tuple[str, ...]:
    """Cut up once, as thousands of places in one file are asked for."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    return tuple(lines)


def _printable(line: str) -> str:
    """The line without what would move a terminal's cursor or could not be written to it."""
    return _UNPRINTABLE.sub("\ufffd", line)
