"""Incomparable: what the records of two stores cannot tell each other: marks of secrets, of which each has its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from compiler.reasons import Explained, Reason
from compiler.secret_marks import ABSENT
from compiler.secret_values import MARK_DIGITS, MASK

if TYPE_CHECKING:
    from compiler.preimage import Preimage

_MARK = re.compile(rf"{re.escape(MASK)}[0-9a-f]{{{MARK_DIGITS}}}")
BETWEEN = "between machines"


def without_marks(preimage: Preimage) -> Preimage:
    """The same with MASK alone where a secret was, so that only what can be compared is."""
    parts = {**preimage.parts, "operation": _bare(preimage.operation)}
    if "secrets" in parts:
        parts["secrets"] = [[name, mark if mark == ABSENT else MASK] for name, mark in parts["secrets"]]
    return preimage._replace(parts=parts, title=_bare(preimage.title))


def incomparable(now: Preimage, before: Preimage) -> list[Explained]:
    """What is secret in both and marked otherwise: it may be the same, or not."""
    found = []
    for name in _names(now, before):
        found.append(f"the value of {name} cannot be compared {BETWEEN}")
    old, new = ({**each.operation, "env": []} for each in (before, now))
    if old != new and _bare(old) == _bare(new):
        found.append(f"what is secret in the instruction cannot be compared {BETWEEN}")
    marks, others = (dict(each.parts.get("secrets", ())) for each in (now, before))
    for name in sorted(marks.keys() & others.keys()):
        if marks[name] != others[name] and ABSENT not in (marks[name], others[name]):
            text = f"the secret {name} counts, and each store marks it with a key of its own"
            found.append(f"{text}: its value cannot be compared {BETWEEN}, nor the result shared")
    return [Explained(Reason.SECRET_UNKNOWN, text) for text in found]


def _names(now: Preimage, before: Preimage) -> list[str]:
    """Variables whose values differ by nothing but marks."""
    new, old = _variables(now), _variables(before)
    both = sorted(new.keys() & old.keys())
    return [name for name in both if new[name] != old[name] and _bare(new[name]) == _bare(old[name])]


def _variables(preimage: Preimage) -> dict[str, str]:
    return {str(name): str(value) for name, value in preimage.operation.get("env", ())}


def _bare(value: Any) -> Any:
    if isinstance(value, str):
        return _MARK.sub(MASK, value) if MASK in value else value
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value
