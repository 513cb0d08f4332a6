"""Durations as Go writes them, such as `1m30s`, in nanoseconds."""

from __future__ import annotations

import re

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = r"([0-9]*+)(?:\.([0-9]*+))?+(ns|us|µs|μs|ms|s|m|h)"
"""Whole, fraction, unit. Possessive, so that a text of digits only fails in one pass."""
_MAX = 2**63 - 1


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration with units; `0` needs none. ValueError for anything else, or beyond 292 years."""
    match = re.fullmatch(rf"([+-]?)(0|(?:{_PART})+)", text)
    if match is None:
        raise ValueError(f"{text[:60]} is no duration such as 30s or 1m30s")
    total = 0
    if match[2] == "0":
        return 0
    for whole, fraction, unit in re.findall(_PART, match[2]):
        if not whole and not fraction:
            raise ValueError(f"{text[:60]} is no duration such as 30s or 1m30s")
        if len(whole) > 19:
            raise ValueError(f"{text[:60]} is too long a duration")
        digits = fraction[:18]
        total += int(whole or 0) * _UNITS[unit] + int(digits or 0) * _UNITS[unit] // 10 ** len(digits)
    if total > _MAX:
        raise ValueError(f"{text[:60]} is too long a duration")
    return -total if match[1] == "-" else total
