"""Patterns: which namespaces are meant by `main`, `pr/*` and `team/**`."""

from __future__ import annotations

import functools
import re

from cache.errors import UsageError

MAX = 200
"""Characters of a pattern: a name has 100 at most."""
MAX_STARS = 4
"""Each star multiplies the ways that a name can be tried; no real pattern has more than two."""
_FORM = re.compile(r"[A-Za-z0-9._*-]*(?:/[A-Za-z0-9._*-]+)*")


def check_pattern(text: str) -> str:
    """The pattern, if it is one. Raises UsageError."""
    dots = {".", ".."} & set(text.split("/"))
    if len(text) > MAX or not _FORM.fullmatch(text) or text.startswith("/") or dots or text.count("*") > MAX_STARS:
        hint = "write main, pr/* (one level below pr), pr/** (all below pr), ** (everything) or '' (the default one)"
        raise UsageError(f"{text[:80]!r} is no pattern of namespaces", hint=hint)
    return text


def matches(pattern: str, name: str) -> bool:
    """`*` stands for any letters but `/`, also none; `**` for any letters; all else for itself. The default namespace
    is the empty name: only the empty pattern, `*` and `**` mean it."""
    return _compiled(pattern).fullmatch(name) is not None


def pattern_text(pattern: str) -> str:
    """For people."""
    return pattern or "(default)"


@functools.lru_cache(maxsize=1000)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*+)", pattern)
    return re.compile("".join(_one(part) for part in parts))


def _one(part: str) -> str:
    if not part.startswith("*"):
        return re.escape(part)
    return "[^/]*" if part == "*" else ".*"
