"""A table of text, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.progress.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = 3


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, headings first; a column without any cell is left out."""
    cells = [[printable(cell) for cell in row] for row in rows]
    kept = [number for number in range(len(cells[0])) if any(row[number] for row in cells[1:])]
    widths = {number: max(len(row[number]) for row in cells) + _GAP for number in kept}
    lines = ["".join(row[number].ljust(widths[number]) for number in kept).rstrip() for row in cells]
    return "\n".join(lines) + "\n"
