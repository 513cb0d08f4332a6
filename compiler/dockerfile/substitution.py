"""The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, with `\\` before what means itself.

Patterns are matched by following all states at once. A regular expression would need time without bound for
`*a*a*a*a*b`, and could not find the shortest suffix.
"""

from __future__ import annotations

_STAR = "*"
_ANY = "?"
_LITERAL = "="


def remove_prefix(value: str, pattern: str, longest: bool) -> str:
    """The value without the shortest or longest start that the pattern matches; ValueError for a bad pattern."""
    end = _match_length(_tokens(pattern), value, 0, longest)
    return value if end is None else value[end:]


def remove_suffix(value: str, pattern: str, longest: bool) -> str:
    """The value without the shortest or longest end that the pattern matches; ValueError for a bad pattern."""
    length = _match_length(_tokens(pattern)[::-1], value[::-1], 0, longest)
    return value if length is None else value[: len(value) - length]


def replace(value: str, pattern: str, replacement: str, everywhere: bool) -> str:
    """The value with the first, or every, longest match replaced; ValueError for a bad pattern."""
    tokens = _tokens(pattern)
    if all(kind == _LITERAL for kind, _ in tokens):
        literal = "".join(char for _, char in tokens)
        return value.replace(literal, replacement, -1 if everywhere else 1)
    parts: list[str] = []
    at = done = 0
    while at <= len(value):
        length = _match_length(tokens, value, at, True)
        # An empty match right behind another match is none.
        if length is None or (length == 0 and at == done and parts):
            at += 1
            continue
        parts += value[done:at], replacement
        done = at + length
        at = done if length else at + 1
        if not everywhere:
            break
    return "".join(parts) + value[done:]


def _tokens(pattern: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\":
            char = pattern[at : at + 1]
            at += 1
            if not char or char not in "*?\\}/":
                raise ValueError(f"\\{char} is no escape; \\*, \\?, \\\\, \\}} and \\/ are")
            tokens.append((_LITERAL, char))
        elif char in "*?":
            tokens.append((char, char))
        else:
            tokens.append((_LITERAL, char))
    return tokens


def _match_length(tokens: list[tuple[str, str]], value: str, start: int, longest: bool) -> int | None:
    """How many characters from `start` the tokens match; a line feed is matched by itself only."""
    states = _closure(tokens, {0})
    found: int | None = None
    for at in range(start, len(value) + 1):
        if len(tokens) in states:
            found = at - start
            if not longest:
                return found
        if at == len(value) or not states:
            break
        char = value[at]
        following: set[int] = set()
        for state in states:
            if state == len(tokens):
                continue
            kind, literal = tokens[state]
            if kind == _LITERAL:
                if literal == char:
                    following.add(state + 1)
            elif char != "\n":
                following.add(state if kind == _STAR else state + 1)
        states = _closure(tokens, following)
    return found


def _closure(tokens: list[tuple[str, str]], states: set[int]) -> set[int]:
    """The states and those that stars, matching nothing, lead to."""
    reached = set(states)
    for state in states:
        while state < len(tokens) and tokens[state][0] == _STAR:
            state += 1
            reached.add(state)
    return reached
