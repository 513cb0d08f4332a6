"""IgnoreRules: which paths `.dockerignore` or `COPY --exclude` leaves out.

A pattern that matches a directory matches everything below it. Of all patterns that match a path the last one decides,
and one with `!` takes the path back in. Each pattern becomes one part of a regular expression that matches the path or
a directory above it; neighbours of the same kind share one expression.
"""

from __future__ import annotations

import posixpath
import re
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from worker.globs import STAR, component_regex, split_glob

if TYPE_CHECKING:
    from collections.abc import Iterable

SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""White space as the reference implementation trims it."""
MAX_READINGS = 64
"""Expressions that one pattern may become: each `a**b` in it doubles them."""

_ANY_DEPTH: list[str] = [STAR, STAR]
"""A component `**`: any number of directories, also none."""


class _Group(NamedTuple):
    """Neighbouring patterns of one kind.

    exception: they take paths back in. matches: the path or a directory above it. below: for exceptions, directories
        that such a pattern could match something below of.
    """

    exception: bool
    matches: re.Pattern[str]
    below: re.Pattern[str] | None


class IgnoreRules:
    """Compiled patterns, immutable. Paths are relative, `/`-separated, without `.` and `..`."""

    __slots__ = ("_backwards", "_groups", "_patterns")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        """Of cleaned patterns; use `parse` or `from_patterns`."""
        self._patterns = patterns
        self._groups = tuple(
            _group(exception, [pattern.removeprefix("!") for pattern in group])
            for exception, group in groupby(patterns, lambda pattern: pattern.startswith("!"))
        )
        self._backwards = tuple(range(len(self._groups) - 1, -1, -1))

    @classmethod
    def from_patterns(cls, patterns: Iterable[str]) -> IgnoreRules:
        """Rules of patterns that stand elsewhere than in a file; ValueError for a malformed one."""
        return cls(tuple(filter(None, map(clean_pattern, patterns))))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def ignored(self, path: str) -> bool:
        """Whether the path is left out; a slash at its end means nothing."""
        return self._decision(path.strip("/") if path.endswith("/") else path) >= 0

    def _decision(self, path: str) -> int:
        """The number of the last group that matches, if that leaves the path out, else -1."""
        for number in self._backwards:
            group = self._groups[number]
            if group.matches.match(path):
                return -1 if group.exception else number
        return -1

    def may_contain_exceptions(self, directory: str) -> bool:
        """Whether a `!` pattern could take back something below an ignored directory, so that it must be walked."""
        directory = directory.strip("/")
        # Exceptions above the group that left the directory out lose to it below the directory, too.
        later = self._groups[self._decision(directory) + 1 :]
        return any(group.below is not None and group.below.match(directory) for group in later)

    def digest_input(self) -> str:
        """One cleaned pattern a line: equal text, equal decisions."""
        return "\n".join(self._patterns)


def clean_pattern(line: str) -> str:
    """A pattern without outer blanks, `.`, `..` and needless slashes, `!` kept; `""` for no pattern.

    ValueError for a malformed one.
    """
    text = line.strip(SPACE)
    exception = text.startswith("!")
    if exception:
        text = text[1:].strip(SPACE)
        if not text:
            raise ValueError("a pattern that is only ! takes nothing back")
    if not text:
        return ""
    # A leading slash is dropped once, and POSIX keeps two of them.
    text = posixpath.normpath(re.sub("^/+", "/", text))
    if len(text) > 1:
        text = text.removeprefix("/")
    _expressions(text)
    return f"!{text}" if exception else text


def _group(exception: bool, patterns: list[str]) -> _Group:
    expressions = [one for pattern in patterns for one in _expressions(pattern)]
    matches = re.compile("|".join(map(_matching, expressions)), re.DOTALL)
    if not exception:
        return _Group(False, matches, None)
    return _Group(True, matches, re.compile("|".join(map(_leading_to, expressions)), re.DOTALL))


def _expressions(pattern: str) -> list[list[list[str]]]:
    """What one pattern means, as lists of components in which `**` is always a component of its own.

    `**` takes the slash behind it with it. At the end it is a `*`: with everything below, that is the same. Inside a
    name, `a**b` is `ab` or `a*/**/b`. `**x` at the start is `**/*x` where x holds no wildcard, and `**/x` where it
    does: a peculiarity of the reference implementation.
    """
    if re.fullmatch(r"\*\*[^/*?\[\]\\][^*?\[\]\\]*", pattern):
        return [[_ANY_DEPTH, *split_glob(pattern[1:])]]
    readings: list[list[list[str]]] = [[[]]]
    tokens = _flat(split_glob(pattern))
    at = 0
    while at < len(tokens):
        one = tokens[at]
        at += 1
        if tokens[at - 1 : at + 1] == _ANY_DEPTH:
            at += 1
            if at == len(tokens):
                readings = [[*front, [*current, STAR]] for *front, current in readings]
                break
            at += tokens[at] == "/"
            deeper = [
                [*front, *([[*current, STAR]] if current else []), _ANY_DEPTH, []] for *front, current in readings
            ]
            readings = [reading for reading in readings if reading[-1]] + deeper
            if len(readings) > MAX_READINGS:
                raise ValueError(f"the pattern {pattern} has ** inside names too often")
        elif one == "/":
            readings = [[*reading, []] for reading in readings]
        else:
            readings = [[*front, [*current, one]] for *front, current in readings]
    return [_without_repeats(reading) for reading in readings]


def _flat(components: list[list[str]]) -> list[str]:
    tokens: list[str] = []
    for component in components:
        tokens += component
        tokens.append("/")
    return tokens[:-1]


def _without_repeats(expression: list[list[str]]) -> list[list[str]]:
    return [
        component
        for number, component in enumerate(expression)
        if component != _ANY_DEPTH or number == 0 or expression[number - 1] != _ANY_DEPTH
    ]


def _matching(expression: list[list[str]]) -> str:
    """The expression of a path that matches, or that lies below one."""
    return _up_to(expression, len(expression)) + r"(?![^/])"


def _up_to(expression: list[list[str]], count: int) -> str:
    """The first components, joined by slashes.

    Components between two `**` are settled by the first place where they fit: the next `**` takes up the difference.
    """
    parts: list[str] = []
    run = ""
    open_run = False
    for number, component in enumerate(expression[:count]):
        if component == _ANY_DEPTH:
            parts.append(f"(?>{run})" if open_run else run)
            run, open_run = "(?:[^/]*/)*?", True
        else:
            run += component_regex(component)
            if number < count - 1:
                run += "/"
    return "".join(parts) + run


def _leading_to(expression: list[list[str]]) -> str:
    """The expression of directories below which something can match."""
    regex = ""
    for component in reversed(expression[:-1]):
        if component == _ANY_DEPTH:
            regex = ".*"
        else:
            regex = f"{component_regex(component)}(?:\\Z{f'|/{regex}' if regex else ''})"
    return f"(?:\\Z|{regex})" if regex else r"\Z"
