"""Critical: the chain of steps that a build had to wait for, out of what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Spans = Mapping[str, tuple[float, float]]
    Inputs = Mapping[str, Sequence[str]]


def critical_chain(spans: Spans, inputs: Inputs) -> tuple[str, ...]:
    """First to last: what ended last, before it the one of its inputs that ended last, and so on.

    spans: start and end of what was executed, by name. inputs: may name what has no span, as what was known before,
    and lead through it to what has one. Circles, which only damaged records have, are cut.
    """
    chain: list[str] = []
    taken: set[str] = set()
    known: dict[str, str | None] = {}
    name = _latest(spans, spans)
    while name is not None and name not in taken:
        taken.add(name)
        chain.append(name)
        name = _latest((_executed(each, spans, inputs, known) for each in inputs.get(name, ())), spans)
    return tuple(reversed(chain))


def _latest(names: Iterable[str | None], spans: Spans) -> str | None:
    """The one that ended last."""
    return max((name for name in names if name is not None), key=lambda name: (spans[name][1], name), default=None)


def _executed(name: str, spans: Spans, inputs: Inputs, known: dict[str, str | None]) -> str | None:
    """What was executed last of what this is, or consists of. known: what was found of others."""
    waiting = [name]
    while waiting:
        each = waiting[-1]
        if each in spans:
            known[each] = each
        elif each not in known:
            known[each] = None
            more = [below for below in inputs.get(each, ()) if below not in known]
            if more:
                waiting += more
                continue
        if known[each] is None:
            known[each] = _latest((known.get(below) for below in inputs.get(each, ())), spans)
        waiting.pop()
    return known[name]
