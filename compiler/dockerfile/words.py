"""The ways in which an instruction's arguments are cut into words: blanks, quotes, NAME=VALUE, JSON."""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn

SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""White space as the reference implementation trims it; `str.strip()` would also take the separators 1C to 1F."""

_BLANKS = re.compile(r"[\t\v\f\r ]+")
"""What separates words. A no-break space does not, though it is trimmed at both ends."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Pair(NamedTuple):
    """One `KEY=VALUE` of ENV or LABEL, neither of them expanded, quotes still in place."""

    key: str
    value: str


def split_first(text: str) -> tuple[str, str]:
    """The first word and what follows the blanks after it; `""` for what is not there."""
    parts = _BLANKS.split(text, maxsplit=1)
    return parts[0], parts[1] if len(parts) == 2 else ""


def split_blanks(text: str) -> tuple[str, ...]:
    """Words between blanks; quotes and escapes mean nothing here."""
    return tuple(_BLANKS.split(text)) if text else ()


def split_quoted(text: str, escape: str) -> tuple[str, ...]:
    """Words between white space, which may stand inside quotes or behind the escape token; both are kept in the words.

    An escape token at the very end is dropped; a quote that is never closed reaches to the end.
    """
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if not quote and char in SPACE:
            if word:
                words.append("".join(word))
                word = []
            at += 1
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == escape and quote != "'":
            if at + 1 == len(text):
                break
            word.append(char)
            at += 1
            char = text[at]
        word.append(char)
        at += 1
    if word:
        words.append("".join(word))
    return tuple(words)


def split_pairs(text: str, keyword: str, escape: str) -> tuple[tuple[Pair, ...], bool]:
    """`K=V K=V …`, or the old `K the rest is the value`; the second result says that it was the old form.

    ValueError for no argument, a key without a value, a word without `=`, an empty key.
    """
    words = split_quoted(text, escape)
    if not words:
        raise ValueError(f"{keyword} needs at least one NAME=VALUE")
    if "=" not in words[0]:
        parts = _BLANKS.split(text, maxsplit=1)
        if len(parts) < 2:
            raise ValueError(f"{keyword} {parts[0]} needs a value: write {parts[0]}=VALUE")
        return (Pair(parts[0], parts[1]),), True
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{keyword}: {word} has no =; a value with spaces needs quotes")
        if not key:
            raise ValueError(f"{keyword}: the name before {word} is empty")
        pairs.append(Pair(key, value))
    return tuple(pairs), False


def json_array(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None where the text is no JSON array and so means itself.

    ValueError for a JSON array that holds something else than strings.
    """
    text = text.lstrip(SPACE)
    if not text.startswith("["):
        return None
    try:
        values: list[object] = json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise ValueError("an argument in JSON form is an array of strings only")
    strings = [str(value) for value in values]
    if not _SURROGATE.search(text):
        # A lone \ud800 is no character. Surrogates that stand in the text itself are bytes that are not UTF-8.
        strings = [_SURROGATE.sub("\ufffd", string) for string in strings]
    return tuple(strings)


def _not_json(name: str) -> NoReturn:
    """Python's reader takes NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is not JSON")


def split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """The `--name[=value]` words at the start, without their quotes and escapes, and the rest, trimmed.

    A bare `--` ends the flags and is dropped.
    """
    if not text.startswith("--"):
        return (), text.strip(SPACE)
    flags: list[str] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:].strip(SPACE)
        word: list[str] = []
        quote = ""
        while at < end and (quote or text[at] not in SPACE):
            char = text[at]
            at += 1
            if char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            elif char == escape:
                word.append(text[at : at + 1])
                at += 1
            else:
                word.append(char)
        flag = "".join(word)
        if flag == "--":
            return tuple(flags), text[at:].strip(SPACE)
        flags.append(flag)
