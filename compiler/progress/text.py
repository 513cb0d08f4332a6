"""Text: what a step printed made harmless for a terminal, and times and sizes in few characters."""

from __future__ import annotations

import re

_ESCAPES = r"""(?x)
    (?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?                                          # CSI: colours, cursor, erasing
    | (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)  # strings: titles, links, images
    | \x1b[\ -/]*[0-~]?                                                        # the rest
"""
_CONTROLS = r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
"""All but the tab; with them what reverses the direction of the text behind it."""
_SURROGATES = r"[\ud800-\udfff]"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def printable(line: str) -> str:
    """The line as a terminal would leave it standing, without anything that acts on the terminal; tabs stay.

    Of a line that was overwritten by carriage returns the last version stays. Half characters become U+FFFD.
    """
    if line.isprintable():
        return line
    # Most builds print nothing like that: compiling the expressions (1.2 ms) is left to the first line that needs it.
    line = re.sub(_ESCAPES, "", line)
    if "\r" in line:
        line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    return re.sub(_SURROGATES, "\ufffd", re.sub(_CONTROLS, "", line))


def printable_lines(text: str) -> str:
    """`printable` for each line of a text that is a message, not what a step printed."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def seconds_text(seconds: float) -> str:
    """As docker writes them: `0.2s`, `83.1s`."""
    return f"{max(0.0, seconds):.1f}s"


def age_text(seconds: float) -> str:
    """`3 d`, `5 h`, `12 min`, `40 s`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size_text(size: int) -> str:
    """Decimal units, three digits or so, as docker has them: `812B`, `4.1kB`, `45.2MB`."""
    if size < 1000:
        return f"{size}B"
    value = float(size)
    unit = 0
    # What would round to 1000.0 belongs to the next unit.
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.1f}{_UNITS[unit]}"


def moved_text(done: int, total: int | None) -> str:
    """How far a transfer is: `1.2MB / 45.2MB`."""
    return size_text(done) if total is None else f"{size_text(done)} / {size_text(total)}"


def summary_text(ok: bool, seconds: float, hits: int, ran: int) -> str:
    """The last line of a build."""
    return f"{'built in' if ok else 'failed after'} {seconds_text(seconds)}: {ran} ran, {hits} cached"
