"""The signals that STOPSIGNAL takes: Linux names, with or without SIG, and numbers."""

from __future__ import annotations

_NAMES = frozenset({
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
})  # fmt: skip
_ABOVE_RTMIN = 15
_BELOW_RTMAX = 14
_MAX = 64
"""SIGRTMAX on Linux."""


def check_signal(text: str) -> str:
    """The text itself where it is a signal; ValueError where it is none."""
    name = text.upper().removeprefix("SIG")
    start, sign, distance = name.partition("+") if "+" in name else name.partition("-")
    if text.isascii() and text.isdigit() and len(text) < 4:
        valid = 0 < int(text) <= _MAX
    elif sign:
        limit = {"RTMIN+": _ABOVE_RTMIN, "RTMAX-": _BELOW_RTMAX}.get(start + sign, 0)
        valid = distance.isascii() and distance.isdigit() and len(distance) < 3 and 0 < int(distance) <= limit
    else:
        valid = name in _NAMES
    if not valid:
        raise ValueError(f"{text[:60]} is no signal such as SIGTERM or 15")
    return text
