"""Table: rows as aligned columns, made harmless for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.progress.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Lines, each ending in a newline. right: numbers of the columns whose cells stand at the right."""
    if not rows:
        return ""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "".join(f"{line}\n" for line in lines)
