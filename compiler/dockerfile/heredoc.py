"""Heredoc: text that stands in the lines below an instruction, and where an instruction announces one."""

from __future__ import annotations

import re
from typing import NamedTuple

from compiler.dockerfile.expand import ExpansionError, split_unexpanded

_WORD = re.compile(r"([0-9]*)<<(-?)([\t\n\f\r ]*)([^<]*)")


class Heredoc(NamedTuple):
    """One heredoc.

    name: the terminator, without quotes; COPY and ADD name the file after it.
    body: the lines between, with their ends, just as they stand in the Dockerfile.
    expand: variables in the body are expanded, because no part of the word was quoted.
    chomp: announced with `<<-`: leading tabs are not part of the content.
    fd: the file descriptor before the `<<`; 0 where none is written.
    """

    name: str
    body: str
    expand: bool
    chomp: bool
    fd: int

    @property
    def content(self) -> str:
        """The body, without leading tabs where `<<-` asks for that."""
        return re.sub(r"^\t+", "", self.body, flags=re.MULTILINE) if self.chomp else self.body


class Announcement(NamedTuple):
    """A word of an instruction that announces a heredoc, whose body is not read yet.

    spaced: blanks stand between `<<` and the name. A shell takes that for a heredoc, but `$((1 << 3))` looks the same:
        it counts only where the terminator follows.
    """

    heredoc: Heredoc
    spaced: bool


def announcement(word: str) -> Announcement | None:
    """What a word announces; None where it is no heredoc (`<<<word`, `<<''`, `<<a<<b`, several words)."""
    match = _WORD.fullmatch(word)
    if match is None or not match[4]:
        return None
    try:
        names = split_unexpanded(match[4], keep_quotes=False, keep_escapes=False)
        quoted = split_unexpanded(match[4], keep_quotes=True, keep_escapes=False)
    except ExpansionError:
        return None
    if len(names) != 1 or len(quoted) != 1:
        return None
    name = names[0]
    # Escaped quotes are counted on both sides, so only quotes that quote make a difference.
    expand = _quotes(name) == _quotes(quoted[0])
    fd = int(match[1][-4:] or 0)
    return Announcement(Heredoc(name, "", expand, match[2] == "-", fd), bool(match[3]))


def announcements(line: str) -> list[Announcement]:
    """All heredocs that one logical line announces, in order; none where its quotes do not match."""
    try:
        words = split_unexpanded(line, keep_quotes=True, keep_escapes=True, join_heredocs=True)
    except ExpansionError:
        return []
    found = [announcement(word) for word in words if "<<" in word]
    return [one for one in found if one is not None]


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')
