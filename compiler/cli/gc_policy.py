"""GcPolicy from buildgraph.toml: the table [gc]; and the ages and sizes that it and `cache prune` take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cache.collect import GcPolicy
from cache.disk_usage import disk_bytes
from cache.errors import UsageError
from cache.size_text import parse_size
from compiler.dockerfile.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN = {"enabled": bool, "max-used-space": str, "min-free-space": str, "unused-for": str}
"""Keys of the table and their types."""
EXAMPLES = {"enabled": "false", "max-used-space": '"50GB"', "min-free-space": '"10GB"', "unused-for": '"30d"'}
_DAYS = r"([0-9]{1,6})(d|w)(.*)"
_DAY = 86_400.0


def check_gc(path: str, table: object) -> None:
    """Raises UsageError for a table that cannot be understood. path: of the file, for the message."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: gc is no table", hint="write it as [gc] with one key a line")
    for name, value in table.items():
        kind = KNOWN.get(name)
        if kind is None:
            raise UsageError(f"{path}: unknown key gc.{name}", hint=f"known are {', '.join(KNOWN)}")
        if not isinstance(value, kind):
            what = "true or false" if kind is bool else "a text in quotes"
            raise UsageError(f"{path}: gc.{name} is not {what}", hint=f"write for example {name} = {EXAMPLES[name]}")
        try:
            if name == "unused-for":
                age(str(value))
            elif kind is str:
                parse_size(str(value), 0)
        except ValueError as error:
            hint = f"write for example {name} = {EXAMPLES[name]}"
            raise UsageError(f"{path}: gc.{name}: {error}", hint=hint) from None


def gc_policy(table: Mapping[str, Any], store: str) -> GcPolicy:
    """The policy of a table that was checked. store: its directory, for sizes in percent."""
    texts = {name: table.get(name) for name in ("max-used-space", "min-free-space")}
    disk = disk_bytes(store) if any(text is not None for text in texts.values()) else 0
    sizes = {name: None if text is None else parse_size(text, disk) for name, text in texts.items()}
    unused_for = table.get("unused-for")
    return GcPolicy(
        enabled=table.get("enabled", True),
        max_used=sizes["max-used-space"],
        min_free=sizes["min-free-space"],
        unused_for=None if unused_for is None else age(unused_for),
        max_used_text=_said(table, "max-used-space"),
        min_free_text=_said(table, "min-free-space"),
        unused_for_text=_said(table, "unused-for"),
    )


def _said(table: Mapping[str, Any], name: str) -> str:
    """A figure as the file has it, and where it stands."""
    return f"{table[name]} ({name} in buildgraph.toml)" if name in table else ""


def age(text: str) -> float:
    """Seconds of `24h`, `7d`, `2w`, `1d12h`. ValueError for anything else."""
    total, rest = 0.0, text.strip()
    match = re.fullmatch(_DAYS, rest)
    while match is not None:
        total += int(match[1]) * _DAY * (7 if match[2] == "w" else 1)
        rest = match[3]
        match = re.fullmatch(_DAYS, rest)
    if rest or not text.strip():
        try:
            total += parse_duration(rest) / 1e9
        except ValueError:
            raise ValueError(f"{text[:60]!r} is no age such as 24h or 7d") from None
    if total < 0:
        raise ValueError(f"{text[:60]!r} is no age such as 24h or 7d")
    return total
