"""File modes as `--chmod` writes them: octal, or symbolic as chmod(1)."""

from __future__ import annotations

import re

_OCTAL = re.compile(r"[0-7]{1,5}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
MAX_MODE = 0o7777


def check_mode(spec: str) -> None:
    """ValueError, with a message for the user, for what is no mode."""
    if _OCTAL.fullmatch(spec):
        if int(spec, 8) > MAX_MODE:
            raise ValueError(f"the mode {spec} is beyond {MAX_MODE:o}")
        return
    if not spec or not all(_CLAUSE.fullmatch(clause) for clause in spec.split(",")):
        raise ValueError(f"{spec or 'an empty text'} is no mode: write it in octal, or as in u=rwX,go=rX")


def fixed_mode(spec: str) -> int | None:
    """The mode that an octal text stands for; None for a symbolic one, which depends on what it is applied to."""
    return int(spec, 8) if _OCTAL.fullmatch(spec) else None


def apply_mode(spec: str, mode: int, *, directory: bool) -> int:
    """What chmod(1) makes of a mode, with a umask of 0. spec: checked by `check_mode`."""
    fixed = fixed_mode(spec)
    if fixed is not None:
        return fixed
    for clause in spec.split(","):
        match = _CLAUSE.fullmatch(clause)
        assert match is not None
        who = "ugo" if not match[1] or "a" in match[1] else match[1]
        for operator, what in _ACTION.findall(match[2]):
            mode = _apply(mode, who, operator, what, directory)
    return mode


def _apply(mode: int, who: str, operator: str, what: str, directory: bool) -> int:
    changed = covered = 0
    for one in who:
        shift = _SHIFT[one]
        covered |= 0o7 << shift
        changed |= _permissions(mode, what, directory) << shift
        # A directory keeps its set-id bits unless they are spelled out, as in GNU's chmod.
        special = {"u": 0o4000, "g": 0o2000, "o": 0o1000}[one]
        if one == "o" or not directory or "s" in what:
            covered |= special
        if ("t" if one == "o" else "s") in what:
            changed |= special
    if operator == "+":
        return mode | changed
    if operator == "-":
        return mode & ~changed
    return mode & ~covered | changed


def _permissions(mode: int, what: str, directory: bool) -> int:
    if what in _SHIFT and len(what) == 1:
        return mode >> _SHIFT[what] & 7
    bits = 0
    for letter in what:
        if letter == "X":
            bits |= 1 if directory or mode & 0o111 else 0
        else:
            bits |= _BITS.get(letter, 0)
    return bits
