"""Variables and quotes in words, as a shell would treat them, by the rules of the Dockerfile language."""

from __future__ import annotations

import re
from collections.abc import Callable

from compiler.dockerfile.substitution import remove_prefix, remove_suffix, replace
from compiler.dockerfile.words import SPACE

Lookup = Callable[[str], str | None]
"""The value of a variable; None where it is not set."""
Seen = Callable[[str, bool], None]
"""Told of each variable that is looked up, and whether it is set."""

MAX_GROWTH = 1 << 20
"""Characters that an expansion may add: `ENV A=$A$A` in forty lines would otherwise ask for a terabyte."""
MAX_DEPTH = 50
"""`${a:-${b:-…}}` within each other; real files have three."""

_PLAIN = re.compile(r"[^$'\"\\`}/<]+")
_SPECIAL = "@*#?-$!0"
"""Parameters of a shell that are never set here."""


class ExpansionError(ValueError):
    """A word that cannot be expanded; the message is for the user, who is told the place by the caller."""


def expand(word: str, lookup: Lookup, escape: str = "\\", *, seen: Seen | None = None) -> str:
    """The word with its variables replaced and its quotes and escapes removed; ExpansionError where that cannot be.

    Blanks are kept: `a $b` stays one word.
    """
    if not _needs_work(word, escape):
        return word
    return _checked("".join(text for text, _ in _Expansion(word, lookup, escape, seen).run()), word)


def expand_words(text: str, lookup: Lookup, escape: str = "\\", *, seen: Seen | None = None) -> list[str]:
    """As `expand`, then cut at white space outside of quotes, also where the value of a variable brought it in."""
    return _split(_Expansion(text, lookup, escape, seen).run())


def expand_raw(text: str, lookup: Lookup, escape: str = "\\", *, seen: Seen | None = None) -> str:
    """The text with its variables replaced and quotes kept, for heredoc bodies; an escape token still drops itself."""
    if not _needs_work(text, escape):
        return text
    pieces = _Expansion(text, lookup, escape, seen, read_quotes=False).run()
    return _checked("".join(piece for piece, _ in pieces), text)


def split_unexpanded(text: str, *, keep_quotes: bool, keep_escapes: bool, join_heredocs: bool = False) -> list[str]:
    """Cut at white space outside of quotes, variables left as they are; `<<` draws the next word to it if asked to."""
    expansion = _Expansion(text, lambda name: None, "\\", None, keep_quotes=keep_quotes, keep_unset=True)
    expansion.join_heredocs = join_heredocs
    return _split(expansion.run(keep_escapes))


def _needs_work(text: str, escape: str) -> bool:
    return "$" in text or "'" in text or '"' in text or escape in text


def _checked(result: str, word: str) -> str:
    if len(result) > len(word) + MAX_GROWTH:
        raise ExpansionError(f"{word[:60]} expands to {len(result):,} characters, far more than anything can use")
    return result


def _split(pieces: list[tuple[str, bool]]) -> list[str]:
    """Join pieces (text, whether white space in it separates) and cut them; an empty quoted word is no word."""
    words: list[str] = []
    word = ""
    for text, separates in pieces:
        if not separates:
            word += text
            continue
        for char in text:
            if char not in SPACE:
                word += char
            elif word:
                words.append(word)
                word = ""
    if word:
        words.append(word)
    return words


class _Expansion:
    """One pass over one text: a recursive descent that yields pieces (text, whether white space in it separates)."""

    __slots__ = (
        "_at", "_depth", "_escape", "_keep_escapes", "_keep_quotes", "_keep_unset", "_lookup", "_read_quotes", "_seen",
        "_text", "join_heredocs",
    )  # fmt: skip

    def __init__(
        self,
        text: str,
        lookup: Lookup,
        escape: str,
        seen: Seen | None,
        *,
        read_quotes: bool = True,
        keep_quotes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._lookup = lookup
        self._escape = escape
        self._seen = seen
        self._read_quotes = read_quotes
        self._keep_quotes = keep_quotes
        self._keep_unset = keep_unset
        self._keep_escapes = False
        self.join_heredocs = False

    def run(self, keep_escapes: bool = False) -> list[tuple[str, bool]]:
        return self._until("", keep_escapes)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    def _until(self, stop: str, keep_escapes: bool) -> list[tuple[str, bool]]:
        """The pieces up to the character `stop`, which is consumed, or up to the end for `""`."""
        outer, self._keep_escapes = self._keep_escapes, keep_escapes
        pieces: list[tuple[str, bool]] = []
        while char := self._peek():
            if plain := _PLAIN.match(self._text, self._at):
                pieces.append((plain[0], True))
                self._at = plain.end()
            elif char == stop:
                self._at += 1
                break
            elif char == "$":
                pieces.append((self._variable(), True))
            elif char == "'" and self._read_quotes:
                pieces.append((self._single_quoted(), False))
            elif char == '"' and self._read_quotes:
                pieces.append((self._double_quoted(), False))
            elif char == self._escape:
                self._at += 1
                pieces.append(((char if keep_escapes else "") + self._next(), False))
            elif self.join_heredocs and self._text.startswith("<<", self._at):
                end = self._at + 2
                while self._text[end : end + 1] and self._text[end] in SPACE:
                    end += 1
                pieces.append((self._text[self._at : end], False))
                self._at = end
            else:
                self._at += 1
                pieces.append((char, True))
        else:
            if stop:
                raise ExpansionError(f"a {stop} is missing after ${{ in {self._text[:100]}")
        self._keep_escapes = outer
        return pieces

    def _single_quoted(self) -> str:
        close = self._text.find("'", self._at + 1)
        if close < 0:
            raise ExpansionError(f"a single quote is not closed in {self._text[:100]}")
        inner = self._text[self._at + 1 : close]
        self._at = close + 1
        return f"'{inner}'" if self._keep_quotes else inner

    def _double_quoted(self) -> str:
        self._at += 1
        parts: list[str] = []
        while char := self._peek():
            if char == "$":
                parts.append(self._variable())
                continue
            self._at += 1
            if char == '"':
                inner = "".join(parts)
                return f'"{inner}"' if self._keep_quotes else inner
            if char == self._escape:
                if self._keep_escapes:
                    parts.append(char)
                following = self._peek()
                if not following:
                    break
                # Only these three can be escaped here; before anything else the token stands for itself.
                if following in ('"', "$", self._escape):
                    self._at += 1
                    char = following
            parts.append(char)
        raise ExpansionError(f"a double quote is not closed in {self._text[:100]}")

    def _variable(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            return f"${name}" if value is None and self._keep_unset else value or ""
        self._at += 1
        if self._peek() in ("{", "}", ":"):
            raise ExpansionError(f"bad substitution in {self._text[:100]}: a name is missing after ${{")
        if self._depth >= MAX_DEPTH:
            raise ExpansionError(f"more than {MAX_DEPTH} variables stand within each other")
        self._depth += 1
        result = self._braced(self._name())
        self._depth -= 1
        return result

    def _braced(self, name: str) -> str:
        """What follows the name in `${name…}`, through the closing brace."""
        operator = self._next()
        if operator == "}":
            value = self._get(name)
            return f"${{{name}}}" if value is None and self._keep_unset else value or ""
        if operator == "/":
            return self._replacement(name)
        empty_is_unset = operator == ":"
        if empty_is_unset:
            operator = self._next()
        if not operator:
            raise ExpansionError(f"a }} is missing after ${{ in {self._text[:100]}")
        written = f":{operator}" if empty_is_unset else operator
        if operator not in ("-+?" if empty_is_unset else "-+?#%"):
            raise ExpansionError(f"unsupported modifier {written} in ${{{name}{written}…}}")
        word = "".join(text for text, _ in self._until("}", operator in "#%"))
        value = self._get(name)
        if value is None and self._keep_unset:
            return f"${{{name}{written}{word}}}"
        missing = value is None or (empty_is_unset and not value)
        if operator == "-":
            return word if missing else value or ""
        if operator == "+":
            return "" if missing else word
        if operator == "?":
            if missing:
                word = word or f"is not allowed to be {'unset' if value is None else 'empty'}"
                raise ExpansionError(f"{name}: {word}")
            return value or ""
        longest = word.startswith(operator)
        cut = remove_prefix if operator == "#" else remove_suffix
        return self._glob(cut, value or "", word[1:] if longest else word, longest)

    def _replacement(self, name: str) -> str:
        """`${name/pattern/replacement}`, the first slash being consumed."""
        everywhere = self._peek() == "/"
        if everywhere:
            self._at += 1
        pattern = "".join(text for text, _ in self._until("/", True))
        replacement = "".join(text for text, _ in self._until("}", True))
        value = self._get(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{'/' if everywhere else ''}{pattern}/{replacement}}}"
        result = self._glob(replace, value or "", pattern, replacement, everywhere)
        return _checked(result, self._text)

    def _glob(self, change: Callable[..., str], value: str, pattern: str, *rest: object) -> str:
        try:
            return change(value, pattern, *rest)
        except ValueError as error:
            raise ExpansionError(f"pattern {pattern} in a substitution: {error}") from None

    def _name(self) -> str:
        """A name, a positional parameter (digits only), one special parameter, or `""`."""
        start = self._at
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            while (char := self._peek()) and (char == "_" or char.isalpha() or char.isdecimal()):
                self._at += 1
        return self._text[start : self._at]

    def _get(self, name: str) -> str | None:
        value = self._lookup(name)
        if self._seen is not None:
            self._seen(name, value is not None)
        return value
