"""The commands in a shell script, as far as rules need them: words and what joins them, nothing is expanded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from compiler.dockerfile import instructions as ast

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SCRIPT = 1 << 20
"""Characters that are read; what is behind them is not checked."""

_TOKEN = re.compile(
    r"""(?x)
    (?P<blank>[ \t\r]++|\\\n)
    | (?P<comment>(?<![^\s;&|(])\#[^\n]*+)
    | (?P<operator>&&|\|\||;;&?|;&|\|&|\n|;|\||&(?!>)|\(|\))
    | (?P<word>(?:[^\s;&|()'"\\`$<>]|\\.|'[^']*+(?:'|$)|"(?:[^"\\]|\\.)*+(?:"|$)|`(?:[^`\\]|\\.)*+(?:`|$)
        |\$\((?:[^()]|\((?:[^()]|\([^()]*+\))*+\))*+\)|\$|[<>]+&?\|?|&>+|<\()+)
    | (?P<rest>.)
    """,
    re.DOTALL,
)
_KEYWORDS = frozenset({"if", "then", "else", "elif", "while", "until", "do", "!", "{", "time", "exec", "command"})
"""Words behind which a command starts."""
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=.*", re.DOTALL)


class Command(NamedTuple):
    """words: without keywords and assignments in front. piped: its output goes into a pipe. depth: of subshells."""

    words: tuple[str, ...]
    piped: bool
    depth: int

    @property
    def plain(self) -> tuple[str, ...]:
        """The words without sudo in front of them."""
        return self.words[1:] if self.words[0] == "sudo" else self.words


def run_script(instruction: ast.Run) -> str:
    """What a shell is given by a RUN; `""` for the exec form and for a heredoc with an interpreter of its own."""
    if instruction.script is not None:
        body = instruction.script.content
        return "" if body.startswith("#!") else body
    command = instruction.command
    return command.text if isinstance(command, ast.ShellForm) else ""


def commands(script: str) -> list[Command]:
    """The simple commands of a script, in order; of what cannot be read, what can."""
    found: list[Command] = []
    words: list[str] = []
    depth = pattern_start = 0
    in_case = False
    for kind, text in _tokens(script[:MAX_SCRIPT]):
        if kind == "word":
            words.append(text)
            if text == "in" and words[0] == "case":
                in_case, words, pattern_start = True, [], len(found)
            elif text == "esac":
                in_case = False
            continue
        if text == ")" and in_case and depth == 0:
            # What stood before it were the patterns of a case, whose | is no pipe.
            del found[pattern_start:]
            words = []
            continue
        _add(found, words, text in ("|", "|&"), depth)
        words = []
        if text == "(":
            depth += 1
        elif text == ")":
            depth = max(0, depth - 1)
        elif text.startswith(";;"):
            pattern_start = len(found)
    _add(found, words, False, depth)
    return found


def _tokens(script: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(script):
        if match.lastgroup in ("word", "operator"):
            yield match.lastgroup, match[0]


def _add(found: list[Command], words: list[str], piped: bool, depth: int) -> None:
    start = 0
    while start < len(words) and (words[start] in _KEYWORDS or _ASSIGNMENT.fullmatch(words[start])):
        start += 1
    if words[start:]:
        found.append(Command(tuple(words[start:]), piped, depth))
