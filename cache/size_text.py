"""Sizes for people, and as people write them: 1024 bytes are a KiB, as docker counts in its options."""

from __future__ import annotations

import re

_UNITS = ("KiB", "MiB", "GiB", "TiB")
_SIZE = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?:([kmgtKMGT])(?:i?[bB])?|[bB])?"
_PERCENT = r"([0-9]{1,2}|100)%"


def bytes_text(size: int) -> str:
    """`812 B`, `4.1 KiB`, `45.2 MiB`."""
    if abs(size) < 1024:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def parse_size(text: str, disk: int) -> int:
    """Bytes of `10GB`, `500m`, `1.5GiB`, or of `20%` of a disk that has `disk` bytes. ValueError for anything else."""
    percent = re.fullmatch(_PERCENT, text)
    if percent is not None:
        return disk * int(percent[1]) // 100
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise ValueError(f"{text[:60]!r} is no size such as 10GB, 500m or 20%")
    power = 0 if match[2] is None else "kmgt".index(match[2].lower()) + 1
    return int(float(match[1]) * (1 << 10 * power))
