"""The texts of an image's history: what docker shows for each instruction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMENT = "buildkit.dockerfile.v0"
"""What docker writes beside each line; tools recognise Dockerfile builds by it."""


def run_text(argv: Sequence[str], arguments: Iterable[tuple[str, str | None]]) -> str:
    """`RUN |2 A=1 B=2 /bin/sh -c make # buildkit`; of an argument whose value is None only the name."""
    declared = [name if value is None else f"{name}={value}" for name, value in arguments]
    prefix = [f"|{len(declared)}", *declared] if declared else []
    return " ".join(["RUN", *prefix, *argv, "# buildkit"])


def copy_text(keyword: str, flags: Sequence[str], sources: Sequence[str], destination: str) -> str:
    """`COPY --chown=1:1 a b /c # buildkit`."""
    return " ".join([keyword, *flags, *sources, destination, "# buildkit"])


def pairs_text(keyword: str, pairs: Iterable[tuple[str, str | None]]) -> str:
    """`ENV A=1 B=2`; a value of None is left out."""
    return " ".join([keyword, *(name if value is None else f"{name}={value}" for name, value in pairs)])


def vector_text(keyword: str, args: Sequence[str]) -> str:
    """`CMD ["nginx" "-g" "daemon off;"]`, quoted as Go prints a list of strings."""
    return f"{keyword} [{' '.join(json.dumps(arg, ensure_ascii=False) for arg in args)}]"


def list_text(keyword: str, items: Sequence[str]) -> str:
    """`EXPOSE [80/tcp 443/tcp]`."""
    return f"{keyword} [{' '.join(items)}]"


def healthcheck_text(test: Sequence[str], durations: Sequence[int], retries: int) -> str:
    """`HEALTHCHECK &{["CMD" "x"] "30s" "0s" "0s" "0s" '\\x03'}`, as Go prints the struct."""
    quoted = " ".join(json.dumps(part, ensure_ascii=False) for part in test)
    shown = " ".join(f'"{go_duration(value)}"' for value in durations)
    return f"HEALTHCHECK &{{[{quoted}] {shown} {_go_rune(retries)}}}"


def go_duration(nanoseconds: int) -> str:
    """As Go's time.Duration prints itself: `1m30s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1000)):
            if nanoseconds >= size:
                return f"{_trimmed(nanoseconds, size)}{unit}"
        return f"{nanoseconds}ns"
    minutes, rest = divmod(nanoseconds, 60 * 1_000_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_trimmed(rest, 1_000_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _trimmed(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    if not fraction:
        return str(whole)
    digits = str(fraction).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def _go_rune(number: int) -> str:
    return f"'\\x{number:02x}'" if number < 32 or number > 126 else f"'{chr(number)}'"
