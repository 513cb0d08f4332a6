"""Text to raw instructions: lines joined, comments set aside, heredocs collected, parser directives read."""

from __future__ import annotations

import re
from typing import NamedTuple

from compiler.dockerfile.errors import DockerfileError, Finding
from compiler.dockerfile.heredoc import Heredoc, announcements
from compiler.dockerfile.policy import PolicyComment, is_policy
from compiler.dockerfile.source import Source, Span
from compiler.dockerfile.words import SPACE, json_array, split_first, split_flags

MAX_LINE = 65535
"""Bytes in one line; the reference implementation's limit."""

_DIRECTIVE = re.compile(r"#[\s\x85\xa0]*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*", re.ASCII)
_MAY_ANNOUNCE = frozenset({"add", "copy", "run"})


class Directives(NamedTuple):
    """The parser directives at the top of the file; `""` for one that is not there.

    syntax: the frontend image that the file asks for. There is one language here, so it changes nothing.
    check: the lint configuration, as in `skip=RULE,RULE;error=true`.
    """

    syntax: str = ""
    escape: str = "\\"
    check: str = ""


class RawInstruction(NamedTuple):
    """One instruction, cut into keyword, flags and rest, but not yet understood.

    keyword: as written. flags: `--name[=value]` without quotes. rest: everything behind them, trimmed.
    comments: the comment lines above it, without `#` and outer blanks; blank lines between do not count.
    text: the whole logical line, as the image history shows it; heredoc bodies are not in it.
    policies: those of the comment lines that say `buildgraph:`, with no blank line between them and the instruction.
    """

    keyword: str
    flags: tuple[str, ...]
    rest: str
    heredocs: tuple[Heredoc, ...]
    comments: tuple[str, ...]
    text: str
    span: Span
    policies: tuple[PolicyComment, ...] = ()


class Lexed(NamedTuple):
    """What the lexer makes of one Source."""

    directives: Directives
    instructions: tuple[RawInstruction, ...]
    findings: tuple[Finding, ...]


def lex(source: Source, escape: str = "\\", *, policies: bool = True) -> Lexed:
    """Cut a source into raw instructions; DockerfileError for what cannot be cut, ValueError for a bad `escape`.

    policies: whether a comment `# buildgraph: …` means something.
    """
    if escape not in ("\\", "`"):
        raise ValueError(f"the escape token is \\ or `, not {escape!r}")
    return _Lexer(source, escape, policies).run()


class _Lexer:
    """A cursor over the lines of one source."""

    def __init__(self, source: Source, escape: str, policies: bool) -> None:
        lines = source.text.removeprefix("\ufeff").split("\n")
        self._source = source
        self._open_ended = bool(lines[-1])
        if not self._open_ended:
            lines.pop()
        self._lines = lines
        self._next = 0
        self._directives = Directives(escape=escape)
        self._findings: list[Finding] = []
        self._with_policies = policies
        self._policies: list[PolicyComment] = []

    def run(self) -> Lexed:
        self._check_lengths()
        self._next = self._read_directives()
        instructions: list[RawInstruction] = []
        comments: list[str] = []
        while self._next < len(self._lines):
            line = self._take().lstrip(SPACE)
            if line.startswith("#"):
                comment = line[1:].strip(SPACE)
                # An empty comment line separates, as in a licence header from the description below it.
                if comment:
                    comments.append(comment)
                    if self._with_policies and is_policy(comment):
                        self._policies.append(self._policy())
                else:
                    comments = []
                continue
            part, continues = self._uncontinued(line)
            if not part and not continues:
                self._refuse_stray("a blank line follows the policy comment, so it is about no instruction")
                continue
            instructions.append(self._instruction(part, continues, tuple(comments)))
            comments = []
        self._refuse_stray("no instruction follows the policy comment")
        return Lexed(self._directives, tuple(instructions), tuple(self._findings))

    def _policy(self) -> PolicyComment:
        """The line that was just taken."""
        return PolicyComment(self._next, self._lines[self._next - 1].rstrip("\r"))

    def _refuse_stray(self, message: str) -> None:
        """An author who writes a policy thinks that it does something."""
        if self._policies:
            hint = "put it directly above the step that it is about"
            raise DockerfileError(message, self._policies[0].span(self._source), hint=hint)

    def _check_lengths(self) -> None:
        for number, line in enumerate(self._lines, 1):
            # No character takes more than four bytes, so that most lines need not be encoded.
            if len(line) * 4 > MAX_LINE and len(line.encode("utf-8", "replace")) > MAX_LINE:
                span = Span(self._source, number, 1, number, len(line))
                raise DockerfileError(f"the line is longer than {MAX_LINE} bytes", span)

    def _take(self) -> str:
        """The next line without its end."""
        line = self._lines[self._next].rstrip("\r")
        self._next += 1
        return line

    def _line_span(self, number: int) -> Span:
        line = self._lines[number - 1].rstrip("\r")
        column = len(line) - len(line.lstrip(SPACE)) + 1
        return Span(self._source, number, min(column, max(1, len(line))), number, max(1, len(line)))

    def _read_directives(self) -> int:
        """Read the directives at the top; how many lines they take."""
        found: dict[str, str] = {}
        # A first line `#!/usr/bin/env …` ends the search for `escape`, but not for the other two.
        shebang = bool(self._lines) and self._lines[0].startswith("#!")
        at = int(shebang)
        while at < len(self._lines):
            match = _DIRECTIVE.fullmatch(self._lines[at].rstrip("\r").lstrip(SPACE))
            name = match[1].lower() if match else ""
            if match is None or name not in ("syntax", "escape", "check") or (shebang and name == "escape"):
                break
            if name in found:
                raise DockerfileError(f"only one {name} parser directive can be used", self._line_span(at + 1))
            found[name] = match[2]
            if name == "escape" and match[2] not in ("\\", "`"):
                raise DockerfileError(f"the escape token is \\ or `, not {match[2]}", self._line_span(at + 1))
            at += 1
        self._directives = self._directives._replace(**found)
        return at

    def _uncontinued(self, line: str) -> tuple[str, bool]:
        """The line without its continuation mark and the blanks behind it, and whether there was one.

        A doubled mark is no continuation.
        """
        escape = self._directives.escape
        trimmed = line.rstrip(" \t")
        if trimmed.endswith(escape) and not trimmed.endswith(escape * 2):
            return trimmed[:-1], True
        return line, False

    def _instruction(self, part: str, continues: bool, comments: tuple[str, ...]) -> RawInstruction:
        """The instruction whose first line, `part`, has just been taken."""
        first = self._next
        policies, self._policies = tuple(self._policies), []
        last = first
        parts = [part]
        empty = 0
        while continues and self._next < len(self._lines):
            line = self._take()
            stripped = line.lstrip(SPACE)
            if stripped.startswith("#"):
                if self._with_policies and is_policy(stripped[1:].strip(SPACE)):
                    # The language drops comments here, so it cannot mean anything.
                    self._policies = [self._policy()]
                    self._refuse_stray("the policy comment stands inside of an instruction")
                continue
            if not stripped:
                empty = empty or self._next
                continue
            last = self._next
            part, continues = self._uncontinued(line)
            parts.append(part)
        text = "".join(parts).strip(SPACE)
        opening = self._line_span(first)
        span = opening._replace(last_line=last, last_column=len(self._lines[last - 1].rstrip(SPACE)) or 1)
        if empty:
            self._findings.append(Finding("NoEmptyContinuation", "Empty continuation line", self._line_span(empty)))
        keyword, behind = split_first(text)
        flags, rest = split_flags(behind, self._directives.escape)
        heredocs: tuple[Heredoc, ...] = ()
        if "<<" in text and _announces(keyword, rest, self._directives.escape, span):
            heredocs = self._heredocs(text, span)
            if heredocs:
                end = len(self._lines[self._next - 1].rstrip("\r"))
                span = span._replace(last_line=self._next, last_column=max(1, end))
        return RawInstruction(keyword, flags, rest, heredocs, comments, text, span, policies)

    def _heredocs(self, text: str, span: Span) -> tuple[Heredoc, ...]:
        heredocs: list[Heredoc] = []
        for heredoc, spaced in announcements(text):
            body = self._body(heredoc)
            if body is not None:
                heredocs.append(heredoc._replace(body=body))
            elif not spaced:
                raise DockerfileError(
                    f"the heredoc is not terminated: no line says just {heredoc.name}", span.find(heredoc.name)
                )
        return tuple(heredocs)

    def _body(self, heredoc: Heredoc) -> str | None:
        """The lines up to the terminator, which is consumed; None, and nothing consumed, where it does not follow."""
        for at in range(self._next, len(self._lines)):
            line = self._lines[at].rstrip("\r")
            if (line.lstrip("\t") if heredoc.chomp else line) == heredoc.name:
                body = "".join(f"{line}\n" for line in self._lines[self._next : at])
                self._next = at + 1
                return body
        return None


def _announces(keyword: str, rest: str, escape: str, span: Span) -> bool:
    """Whether `<<` can announce a heredoc: in ADD, COPY and RUN, also behind ONBUILD, but not in JSON form."""
    keyword = keyword.lower()
    if keyword == "onbuild":
        keyword, behind = split_first(rest)
        keyword = keyword.lower()
        rest = split_flags(behind, escape)[1]
    if keyword not in _MAY_ANNOUNCE:
        return False
    try:
        return json_array(rest) is None
    except ValueError as error:
        raise DockerfileError(str(error), span.find(rest)) from None
