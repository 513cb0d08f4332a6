"""Text differences: the words that differ of two texts, and two long values cut so that their difference is seen."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 60
"""Characters of a value in a sentence; the details have more."""
SHOWN_DETAIL = 400
_COMPARED = 1_000_000
"""Pairs of words; beyond, all between the words that both begin and end with counts as changed."""


def word_diff(old: str, new: str, width: int = SHOWN) -> str:
    """The words that differ, with a word or two around: `make [-j2 → -j4] all`."""
    return sequence_diff(old.split(), new.split(), width)


def sequence_diff(before: list[str], after: list[str], width: int = SHOWN) -> str:
    """The same of texts that are cut up already."""
    start = _shared(before, after)
    end = min(_shared(before[::-1], after[::-1]), min(len(before), len(after)) - start)
    was, is_ = before[start : len(before) - end], after[start : len(after) - end]
    opcodes = [("replace" if was and is_ else "delete" if was else "insert", 0, len(was), 0, len(is_))]
    if was and is_ and len(was) * len(is_) <= _COMPARED:
        import difflib  # 4 ms that only this needs

        opcodes = [*difflib.SequenceMatcher(None, was, is_, autojunk=False).get_opcodes()]
    pieces = [_around(before[:start], width)]
    for tag, i1, i2, j1, j2 in opcodes:
        gone, come = " ".join(was[i1:i2]), " ".join(is_[j1:j2])
        if tag == "equal":
            pieces.append(_around(was[i1:i2], width))
        elif tag == "replace":
            pieces.append(f"[{arrow(gone, come, width)}]")
        elif tag == "delete" and gone:
            pieces.append(f"[without {cut(gone, width)}]")
        elif tag == "insert" and come:
            pieces.append(f"[now with {cut(come, width)}]")
    pieces.append(_around(before[len(before) - end :], width))
    return cut(" ".join(piece for piece in pieces if piece), 3 * width)


def _shared(old: Sequence[str], new: Sequence[str]) -> int:
    """How much both begin with."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _around(words: list[str], width: int) -> str:
    """Words that stayed: no more than it takes to find the place. The ends are nearest to what changed."""
    text = " ".join(words) if len(words) <= 4 else f"{words[0]} … {' '.join(words[-2:])}"
    return text if len(text) <= width else f"{text[: width // 2]}…{text[-(width // 2) :]}"


def arrow(old: str, new: str, width: int = SHOWN) -> str:
    """`old → new`, each at most so wide; what is empty is `nothing`."""
    was, is_ = cut_pair(old, new, width)
    return f"{was or 'nothing'} → {is_ or 'nothing'}"


def both(old: str, new: str, width: int = SHOWN_DETAIL) -> tuple[str, str]:
    """As two lines of details."""
    was, is_ = cut_pair(old, new, width)
    return f"- {was}", f"+ {is_}"


def cut_pair(old: str, new: str, width: int) -> tuple[str, str]:
    """Two texts that differ, each at most so wide: where the first difference would be cut off they begin with an
    ellipsis shortly before it."""
    same = _shared(old, new)
    if max(len(old), len(new)) > width and same > width * 2 // 3:
        start = same - width // 3
        old, new = f"…{old[start:]}", f"…{new[start:]}"
    return cut(old, width), cut(new, width)


def cut(text: str, width: int) -> str:
    """At most so many characters, the last one an ellipsis if some had to go."""
    return text if len(text) <= width else text[: width - 1] + "…"
