"""Globs of file names as Go's `filepath.Match` has them, made into regular expressions that cannot run away.

`*` and `?` and a class never match a `/`. Everything between two `/` is matched on its own, and each `*` but the last
is settled for good by the earliest place that what follows it fits: a later place could not lead to a match that the
earlier one does not lead to. So a pattern costs time in proportion to the path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STAR: Final = "*"
"""The token of a `*`; every other token is a regular expression that matches one character."""

MAX_PATTERN = 4096
"""Characters in a pattern; no path is longer."""


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern holds `*`, `?` or `[` without a backslash before it."""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", pattern, flags=re.DOTALL)) is not None


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """A test whether a whole path matches; ValueError for a malformed pattern."""
    components = split_glob(pattern)
    match = re.compile("/".join(map(component_regex, components))).fullmatch
    return lambda path: match(path) is not None


def split_glob(pattern: str) -> list[list[str]]:
    """The components of a pattern, each a list of tokens; ValueError for a malformed pattern."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern {pattern[:40]}… is longer than {MAX_PATTERN} characters")
    components: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "/":
            components.append([])
        elif char == "*":
            components[-1].append(STAR)
        elif char == "?":
            components[-1].append("[^/]")
        elif char == "[":
            regex, at = _class(pattern, at)
            components[-1].append(regex)
        elif char == "\\":
            char, at = _literal(pattern, at - 1)
            components[-1].append(re.escape(char))
        else:
            components[-1].append(re.escape(char))
    return components


def component_regex(tokens: list[str]) -> str:
    """The regular expression of one component; `/` or the end must follow it."""
    chunks: list[str] = [""]
    for token in tokens:
        if token == STAR:
            chunks.append("")
        else:
            chunks[-1] += token
    first, *others = chunks
    if not others:
        return first
    *inner, last = others
    return first + "".join(f"(?>[^/]*?{chunk})" for chunk in inner if chunk) + f"[^/]*{last}"


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The expression of a class whose `[` has been read, and where the pattern goes on."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        if pattern[at : at + 1] in ("", "-", "]"):
            raise ValueError(f"the class in the pattern {pattern} is malformed")
        low, at = _literal(pattern, at)
        high = low
        if pattern.startswith("-", at):
            if pattern[at + 1 : at + 2] in ("", "-", "]"):
                raise ValueError(f"the class in the pattern {pattern} is malformed")
            high, at = _literal(pattern, at + 1)
        # An empty range, as in [z-a], matches nothing, but is no mistake to Go.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    body = "".join(ranges)
    if negated:
        return f"[^/{body}]", at + 1
    return (f"(?!/)[{body}]" if body else "(?!)"), at + 1


def _literal(pattern: str, at: int) -> tuple[str, int]:
    """One character, or the one behind a backslash, and where the pattern goes on."""
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise ValueError(f"the pattern {pattern} ends in a backslash that escapes nothing")
    return pattern[at], at + 1
